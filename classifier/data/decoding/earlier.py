"""Which files earlier versions decoded to other pixels: their images in an older cache are not used any more."""

from classifier.data.decoding import colours, jpeg, orientation

_PNG_CHUNKS = (b"iCCP", b"sBIT", b"tRNS")


def may_differ(content: bytes) -> bool:
    """May this file have been decoded to other pixels, without its profile, XMP orientation or declared depth?"""
    if jpeg.is_jpeg(content):
        head = jpeg.read_head(content)
        has_colours = any(colours.is_converted(head.profile, mode) for mode in ("RGB", "L", "CMYK"))
        return has_colours or (orientation.find_in_xmp(head.xmp) or 1) != 1
    if content.startswith(b"\x89PNG"):
        pixels = content.find(b"IDAT")
        return any(content.find(chunk, 0, pixels) >= 0 for chunk in _PNG_CHUNKS)
    if content[8:12] == b"WEBP":
        return content.find(b"ICCP", 0, 64) >= 0
    return not content.startswith((b"BM", b"GIF8", b"P"))
