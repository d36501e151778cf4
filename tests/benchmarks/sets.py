"""Image sets of many kinds, written from installed packages as PNG files: OUT/NAME/{train,test}/CLASS/ID.png

The same files in every call: what is random is drawn from fixed seeds. Test images have a folder of their own, so that
no program chooses another split, and the name of a file is unique in its split. Fashion-MNIST and the photographs, Tux
Paint's stamps, are Debian packages, downloaded where they are not installed.
"""

import hashlib
import math
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True)
class Sample:
    split: str
    label: str
    id: str
    image: Image.Image


def write_set(name: str, out: Path, downloads: Path) -> Path:
    """Write a set to OUT/NAME unless it is there; OSError or CalledProcessError if a package cannot be had."""
    folder = out / name
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        partial = Path(scratch) / name
        for sample in SETS[name](downloads):
            class_folder = partial / sample.split / sample.label
            class_folder.mkdir(parents=True, exist_ok=True)
            sample.image.save(class_folder / f"{sample.id}.png")
        partial.rename(folder)
    return folder


def fetch_debian(package: str, installed: Path, downloads: Path) -> Path:
    """Return a folder that a Debian package installs, or that of the downloaded package."""
    if installed.exists():
        return installed
    unpacked = downloads / package
    if not unpacked.is_dir():
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=downloads, check=True, capture_output=True)
        (archive,) = downloads.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True)
        archive.unlink()
    return unpacked / installed.relative_to("/")


def digits(downloads: Path) -> Iterator[Sample]:
    """scikit-learn's digits of 8 x 8 pixels, split as the data set `digits` is."""
    return iter(_load("digits"))


def _clothes(downloads: Path, train: dict[str, int], test: dict[str, int]) -> Iterator[Sample]:
    """The first images of each class of Fashion-MNIST, of 28 x 28 pixels, as many as are asked for."""
    folder = fetch_debian("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist"), downloads)
    left = {"train": train, "test": test}
    for sample in _load(str(folder)):
        if left[sample.split][sample.label] > 0:
            left[sample.split][sample.label] -= 1
            yield sample


def things(downloads: Path) -> Iterator[Sample]:
    """All of Fashion-MNIST, 60,000 and 10,000 images."""
    return _clothes(downloads, train=defaultdict(lambda: 6000), test=defaultdict(lambda: 1000))


def things20(downloads: Path) -> Iterator[Sample]:
    """Fashion-MNIST with 20 images of a class to train and 100 to test."""
    return _clothes(downloads, train=defaultdict(lambda: 20), test=defaultdict(lambda: 100))


def uneven(downloads: Path) -> Iterator[Sample]:
    """500 pullovers, 100 shirts and 5 coats of Fashion-MNIST, tested on 300 of each."""
    train = {"Pullover": 500, "Shirt": 100, "Coat": 5}
    return _clothes(downloads, train=defaultdict(int, train), test=defaultdict(int, dict.fromkeys(train, 300)))


STAMPS_FOLDER = Path("/usr/share/tuxpaint/stamps")
# Not photographs, among those that the words do not tell.
DRAWN = {
    *("animals/insects/bee", "animals/mammals/echidna", "animals/mammals/hedgehog", "household/dishes/mug"),
    *("household/dishes/glass", "household/arttools/highlighter", "medical/tooth", "vehicles/7spoke256"),
    *("vehicles/emergency/sedan_police", "sports/rugby_goal_posts", "plants/trees/birch", "people/toys"),
}
DRAWN_WORDS = ("cartoon", "_mirror", "plastic", "teddy", "dinosaur")
KINDS = (
    ("mammal", ("animals/mammals/", "animals/marsupials/")),
    ("other_animal", ("animals/",)),
    ("food", ("food/",)),
    ("plant", ("plants/",)),
    ("object", ("household/", "hobbies/", "vehicles/", "sports/", "medical/", "military/vehicles/")),
)


def photos(downloads: Path) -> Iterator[Sample]:
    """284 photographs of 5 classes on white, of 224 pixels; 91 for the test, by a hash of their names."""
    stamps = fetch_debian("tuxpaint-stamps-default", STAMPS_FOLDER, downloads)
    for path in sorted(stamps.rglob("*.png")):
        name = path.relative_to(stamps).as_posix()
        label = next((label for label, starts in KINDS if name.startswith(starts)), None)
        stem = name.removesuffix(".png")
        if label is None or stem in DRAWN or any(word in name for word in DRAWN_WORDS):
            continue
        split = "test" if int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100 < 30 else "train"
        yield Sample(split, label, stem.replace("/", "__"), _center(Image.open(path), 224))


def photos5(downloads: Path) -> Iterator[Sample]:
    """The photographs, 5 of a class to train and all that were for the test."""
    return _keep_few(photos(downloads), dict.fromkeys((label for label, _ in KINDS), 5))


def photos17(downloads: Path) -> Iterator[Sample]:
    """17 of the photographs, of 3 classes, and all of their test images."""
    return _keep_few(photos(downloads), {"food": 6, "mammal": 6, "plant": 5})


def faces(downloads: Path) -> Iterator[Sample]:
    """100 faces and 100 other images of scikit-image, of 25 x 25 pixels, 60 of them for the test."""
    return _split_folder(write_faces)


def tiles(downloads: Path) -> Iterator[Sample]:
    """Tiles of 64 pixels of 8 of scikit-image's photographs, 3 of 10 for the test: textures, each of them a class."""
    return _split_folder(write_tiles)


def outlines(downloads: Path) -> Iterator[Sample]:
    """Drawn outlines of 6 shapes on noise, in grey, of 100 pixels: 30 of each to train and 50 to test."""
    rng = np.random.default_rng(0)
    for shape in ("circle", "square", "triangle", "cross", "star", "arc"):
        for i in range(80):
            image = _add_noise(_draw_outline(shape, rng), 12, rng)
            yield Sample("train" if i < 30 else "test", shape, f"{shape}{i:02d}", image)


def letters(downloads: Path) -> Iterator[Sample]:
    """100 letters, digits and signs in 15 fonts, turned and shifted, of 32 pixels: 15 of each to train, 10 to test."""
    import matplotlib

    fonts = sorted((Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf").glob("DejaVu*.ttf"))
    fonts = [str(path) for path in fonts if "Display" not in path.name]
    rng = np.random.default_rng(0)
    for letter in LETTERS:
        for i in range(25):
            image = Image.new("L", (64, 64), 255)
            font = ImageFont.truetype(fonts[rng.integers(len(fonts))], int(rng.integers(26, 44)))
            ImageDraw.Draw(image).text((32, 32), letter, font=font, fill=int(rng.integers(90)), anchor="mm")
            x, y = (int(shift) for shift in rng.integers(-6, 7, 2))
            angle = float(rng.uniform(-20, 20))
            image = image.rotate(angle, Image.Resampling.BICUBIC, translate=(x, y), fillcolor=255)
            image = _add_noise(image.resize((32, 32), Image.Resampling.LANCZOS), 10, rng)
            label = f"u{ord(letter):04x}"
            yield Sample("train" if i < 15 else "test", label, f"{label}-{i:02d}", image)


# No two that are alike in capitals and small letters, or in Latin, Greek and Cyrillic.
LETTERS = "ABDEFGHIJLMNQRTYabdefghijmnqrty0123456789ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρσφψωБДЖИЛЦЧШЩЪЫЭЮЯ+-=<>?!&%@#$*/()[]"

# In the order of the table: the cheap ones first.
SETS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "digits": digits,
    "faces": faces,
    "tiles": tiles,
    "outlines": outlines,
    "photos17": photos17,
    "photos5": photos5,
    "photos": photos,
    "things20": things20,
    "uneven": uneven,
    "letters": letters,
    "things": things,
}


def write_tiles(folder: Path) -> None:
    """Write tiles of scikit-image's photographs: each photograph is a class."""
    import skimage

    for name in ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "ihc"):
        (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        photograph = Image.open(path).convert("RGB")
        (folder / name).mkdir(parents=True)
        for x in range(0, photograph.width - 63, 64):
            for y in range(0, photograph.height - 63, 64):
                photograph.crop((x, y, x + 64, y + 64)).save(folder / name / f"{x}-{y}.png")


def write_faces(folder: Path) -> None:
    """Write scikit-image's 100 faces and 100 other images, of 25 x 25 pixels."""
    import skimage

    images = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")
    for i, image in enumerate(images):
        class_folder = folder / ("face" if i < 100 else "other")
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).astype(np.uint8)).save(class_folder / f"{i:03d}.png")


def _load(path: str) -> list[Sample]:
    """Return the images of a data set that this program reads, in their order there."""
    from classifier import data
    from classifier.config.experiment import Experiment

    dataset = data.load(Experiment().override("data.path", path).data)
    samples = []
    for split, part in (("train", dataset.train), ("train", dataset.validation), ("test", dataset.test)):
        assert part is not None
        for image_CHW, label, id in zip(part.images_NCHW[:].numpy(), part.labels_N.tolist(), part.ids, strict=True):
            name = f"{split}{int(Path(id).name):05d}"
            samples.append(
                Sample(split, dataset.class_names[label].replace("/", "-"), name, Image.fromarray(image_CHW[0]))
            )
    return sorted(samples, key=lambda sample: sample.id)


def _center(image: Image.Image, side: int) -> Image.Image:
    """Return what is opaque in an image, fitted into a white square with a margin of 4 %."""
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    scale = side * 0.92 / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2), image)
    return square


def _keep_few(samples: Iterator[Sample], counts: dict[str, int]) -> Iterator[Sample]:
    """Keep some training images of some classes, and all test images of these classes."""
    pool = [sample for sample in samples if sample.label in counts]
    train = [sample for sample in pool if sample.split == "train"]
    order = np.random.default_rng(0).permutation(len(train))
    for label, count in counts.items():
        yield from [train[i] for i in order if train[i].label == label][:count]
    yield from (sample for sample in pool if sample.split == "test")


def _split_folder(write: Callable[[Path], None]) -> Iterator[Sample]:
    """Take every third or fourth image of each class for the test, 3 of 10."""
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch))
        for class_folder in sorted(Path(scratch).iterdir()):
            for i, path in enumerate(sorted(class_folder.iterdir())):
                split = "test" if i % 10 in (0, 3, 6) else "train"
                yield Sample(split, class_folder.name, f"{class_folder.name}-{path.stem}", Image.open(path))


def _draw_outline(shape: str, rng: np.random.Generator) -> Image.Image:
    """Draw one shape somewhere, of any size, direction, thickness and grey value."""
    image = Image.new("L", (100, 100), int(rng.integers(150, 255)))
    draw = ImageDraw.Draw(image)
    radius, width, grey = int(rng.integers(15, 40)), int(rng.integers(1, 5)), int(rng.integers(110))
    x, y = (int(centre) for centre in rng.integers(radius, 100 - radius, 2))
    turn = rng.uniform(0, 2 * math.pi)
    box = (x - radius, y - radius, x + radius, y + radius)

    def corners(count: int, inner: float = 1.0) -> list[tuple[float, float]]:
        angles = [turn + 2 * math.pi * i / count for i in range(count)]
        radii = [radius * (inner if i % 2 else 1.0) for i in range(count)]
        return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]

    if shape == "circle":
        draw.ellipse(box, outline=grey, width=width)
    elif shape == "arc":
        draw.arc(box, math.degrees(turn), math.degrees(turn) + 200, fill=grey, width=width)
    elif shape == "cross":
        right, bottom, left, top = corners(4)
        draw.line([right, left], fill=grey, width=width)
        draw.line([bottom, top], fill=grey, width=width)
    else:
        points = {"square": corners(4), "triangle": corners(3), "star": corners(10, 0.4)}[shape]
        draw.polygon(points, outline=grey, width=width)
    return image


def _add_noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, deviation, (image.height, image.width))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
