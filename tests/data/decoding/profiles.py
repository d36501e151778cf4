"""ICC profiles made by hand: of matrix and curve, grey, and CMYK by a table."""

import struct

ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of red, green and blue, at a white of D50. Its gamma is 563 / 256."""
WHITE = (0.9642, 1.0, 0.8249)


def rgb_profile(colorants: tuple[tuple[float, ...], ...] = ADOBE_RGB, gamma: float = 563 / 256) -> bytes:
    """A display's profile."""
    tags = {f"{c}XYZ".encode(): _xyz(xyz) for c, xyz in zip("rgb", colorants, strict=True)}
    tags |= {f"{c}TRC".encode(): _curve(gamma) for c in "rgb"}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """A press whose inks only darken: lightness is 100 without ink and 0 with any full ink, and there is no colour."""
    identity = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    grid = b"".join(
        bytes((0 if 1 in (c, m, y, k) else 255, 128, 128))
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
        for k in (0, 1)
    )
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + 4 * ramp + grid + 3 * ramp
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def _profile(colours: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(WHITE), b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)} | tags
    directory, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        directory += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02400000, kind, colours, connection, bytes(12), b"acsp")
    head += bytes(28) + struct.pack(">3i", *(round(65536 * v) for v in WHITE))
    return head.ljust(128, b"\0") + directory + body


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"
