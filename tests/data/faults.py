"""A data set with a planted fault of each kind, and the finding that an audit must report for it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

SIDE = 96


def scene(number: int, side: int = SIDE) -> Image.Image:
    """Return a unique image: soft shapes of several sizes with some fine structure."""
    rng = np.random.default_rng(number)
    pixels = np.zeros((side, side, 3))
    for cells, weight in ((3, 90), (8, 60), (24, 40), (side, 8)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += weight / 255 * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), float)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, name: str = "png", **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **settings)
    return stream.getvalue()


def darker(image: Image.Image, factor: float) -> Image.Image:
    """Return a darker image, or a brighter one if the factor is above 1."""
    return ImageEnhance.Brightness(image).enhance(factor)


def _corrupted() -> bytes:
    content = bytearray(encoded(scene(9001)))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def _animated() -> bytes:
    frames = [scene(9100 + n) for n in range(3)]
    return encoded(frames[0], "gif", save_all=True, append_images=frames[1:])


def _bright(image: Image.Image) -> Image.Image:
    return Image.fromarray((255 - (255 - np.asarray(image).astype(float)) * 0.06).astype(np.uint8))


def _cropped(image: Image.Image) -> Image.Image:
    side = round(0.95 * image.width)
    return image.crop((2, 3, 2 + side, 3 + side)).resize(image.size, Image.Resampling.BICUBIC)


# Name -> extension, content, and the kind of finding that must name the file.
FAULTS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": ("png", lambda: b"", "unreadable"),
    "noise": ("jpg", lambda: np.random.default_rng(1).bytes(3000), "unreadable"),
    "text": ("jpg", lambda: b"<html>404 not found</html>", "unreadable"),
    "truncated-png": ("png", lambda: encoded(scene(9000))[:4000], "unreadable"),
    "truncated-jpeg": ("jpg", lambda: encoded(scene(9000), "jpeg")[:1500], "unreadable"),
    "corrupted-png": ("png", _corrupted, "unreadable"),
    "header-only": ("png", lambda: encoded(scene(9002))[:40], "unreadable"),
    "one-pixel": ("png", lambda: encoded(Image.new("RGB", (1, 1))), "unreadable"),
    "bomb": ("png", lambda: encoded(Image.new("1", (4000, 4000))), "unreadable"),
    "float": ("tif", lambda: encoded(Image.fromarray(np.full((20, 20), 9.5, np.float32)), "tiff"), "unreadable"),
    "large-file": ("bmp", lambda: encoded(scene(9003, 700), "bmp"), "unreadable"),
    "jpeg-called-png": ("png", lambda: encoded(scene(9004), "jpeg", quality=95), "extension"),
    "webp-called-jpg": ("jpg", lambda: encoded(scene(9005), "webp", quality=95), "extension"),
    "black": ("png", lambda: encoded(Image.new("RGB", (SIDE, SIDE))), "blank"),
    "white": ("png", lambda: encoded(Image.new("RGB", (SIDE, SIDE), "white")), "blank"),
    "one-colour": ("png", lambda: encoded(Image.new("RGB", (SIDE, SIDE), (90, 20, 200))), "blank"),
    "dark": ("png", lambda: encoded(darker(scene(9006), 0.2)), "dark"),
    "bright": ("png", lambda: encoded(_bright(scene(9007))), "bright"),
    "blurred": ("png", lambda: encoded(scene(9008).filter(ImageFilter.GaussianBlur(6))), "blurred"),
    "tiny": ("png", lambda: encoded(scene(9009, 16)), "tiny"),
    "wide": ("png", lambda: encoded(scene(9010).resize((480, 96))), "aspect"),
    "tall": ("png", lambda: encoded(scene(9011).resize((96, 480))), "aspect"),
    "animated": ("gif", _animated, "frames"),
    "copy": ("png", lambda: encoded(scene(0)), "duplicate"),
    "recompressed": ("jpg", lambda: encoded(scene(1), "jpeg", quality=60), "near"),
    "resized": ("png", lambda: encoded(scene(2).resize((70, 70), Image.Resampling.BICUBIC)), "near"),
    "cropped": ("png", lambda: encoded(_cropped(scene(3))), "near"),
    "brightened": ("png", lambda: encoded(darker(scene(4), 1.3)), "near"),
    "mirrored": ("png", lambda: encoded(scene(5).transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "near"),
}
"""`copy` and the near duplicates are in the class of their originals."""

SETTINGS = {"size": 48, "max_pixels": 5_000_000, "max_bytes": 1_000_000, "max_corrupt": 0.3}
GOOD = 120


def files() -> dict[str, bytes]:
    """Return the data set as names and contents: class folders cat and dog; even scenes are cats."""
    found = {f"{'cat' if n % 2 == 0 else 'dog'}/{n:04d}.png": encoded(scene(n)) for n in range(GOOD)}
    originals = {"copy": 0, "recompressed": 1, "resized": 2, "cropped": 3, "brightened": 4, "mirrored": 5}
    for position, (name, (ending, make, _)) in enumerate(FAULTS.items()):
        number = originals.get(name, position)
        found[f"{'cat' if number % 2 == 0 else 'dog'}/{name}.{ending}"] = make()
    found["dog/conflict.png"] = encoded(scene(6))
    return found


def write_folder(folder: Path) -> Path:
    """Write the data set to a folder."""
    for name, content in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
