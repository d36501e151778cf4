"""Near duplicates among photographs: modified copies are found, similar images are not."""

import io
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance

from classifier.data.audit import near_duplicates
from classifier.data.decoding.image_stats import compute_image_stats
from tests.benchmarks.sets import STAMPS_FOLDER, fetch_debian

KINDS = ("recompressed", "resized", "cropped", "brightened", "mirrored")


def modify(image: Image.Image, kind: str, rng: np.random.Generator) -> bytes:
    """Return the same image, modified in one way."""
    quality = 92
    if kind == "recompressed":
        quality = int(rng.integers(30, 70))
    elif kind == "resized":
        factor = float(rng.choice([0.5, 0.66, 1.5, 2.0]))
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    elif kind == "cropped":
        wide, high = round(0.95 * image.width), round(0.95 * image.height)
        left, top = rng.integers(0, image.width - wide + 1), rng.integers(0, image.height - high + 1)
        image = image.crop((int(left), int(top), int(left) + wide, int(top) + high))
    elif kind == "brightened":
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(1.15, 1.4))
    elif kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=quality)
    return stream.getvalue()


def find_pairs(contents: list[bytes]) -> list[near_duplicates.Pair]:
    stats = [compute_image_stats(content, max_pixels=10**8) for content in contents]
    shorter = [min(one.width, one.height) for one in stats]
    return near_duplicates.find_pairs(np.stack([one.thumb for one in stats]), np.array(shorter))


def test_modified_copies_are_found() -> None:
    from tests.data.faults import encoded, scene

    rng = np.random.default_rng(0)
    images = [encoded(scene(n)) for n in range(60)]
    copies = [modify(scene(n), KINDS[n % 5], rng) for n in range(20)]
    blank = [encoded(Image.new("RGB", (40, 40), colour)) for colour in ("red", "blue", "white")]
    found = find_pairs(images + copies + blank)
    assert {(pair.first, pair.second) for pair in found} == {(n, 60 + n) for n in range(20)}
    assert all(pair.mirrored == (KINDS[pair.first % 5] == "mirrored") for pair in found)
    assert all(near_duplicates.MIN_CORRELATION <= pair.similarity <= 1.001 for pair in found)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_very_few_images(count: int) -> None:
    from tests.data.faults import encoded, scene

    thumb = compute_image_stats(encoded(scene(0)), max_pixels=10**8).thumb
    thumbs = np.stack([thumb] * count) if count else np.zeros((0, 64, 64), np.uint8)
    assert len(near_duplicates.find_pairs(thumbs, np.full(count, 64))) == (count == 2)


# The photographs among scikit-image's sample images.
SCENES = ("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field")
SCENES += ("ihc", "moon", "motorcycle_left", "retina", "rocket")
STAMPS = ("animals", "food", "plants", "household", "hobbies", "vehicles", "sports", "medical", "military/vehicles")
DRAWINGS = ("cartoon", "_mirror", "plastic", "teddy", "dinosaur")


def photographs(folder: Path) -> list[Image.Image]:
    """Return photographs of scikit-image, scikit-learn, and Debian's tuxpaint-stamps-default, which is downloaded."""
    import skimage
    import sklearn

    paths = [next((Path(skimage.__file__).parent / "data").glob(f"{name}.*")) for name in SCENES]
    paths += sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    if shutil.which("apt-get") is None:
        pytest.skip("the photographs are a Debian package")
    stamps = fetch_debian("tuxpaint-stamps-default", STAMPS_FOLDER, folder)
    names = [str(path.relative_to(stamps)) for path in sorted(stamps.rglob("*.png"))]
    paths += [stamps / name for name in names if name.startswith(STAMPS) and not any(word in name for word in DRAWINGS)]
    found = []
    for path in paths:
        with Image.open(path) as image:
            if min(image.size) >= 64:
                found.append(flat(image) if image.mode in ("RGBA", "LA", "P") else image.convert("RGB"))
    return found


def flat(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def tiles(images: list[Image.Image], rng: np.random.Generator) -> list[Image.Image]:
    """Return disjoint crops that are not plain, in random order."""
    found = []
    for image in images:
        side = int(rng.integers(32, 48))
        if side > 0.6 * min(image.size):
            continue
        for top in range(0, image.height - side + 1, side):
            for left in range(0, image.width - side + 1, side):
                tile = image.crop((left, top, left + side, top + side))
                grey_HW = np.asarray(tile.convert("L"))
                if grey_HW.std() > 12 and (grey_HW > 245).mean() < 0.5:  # skip corners of cut-outs on white
                    found.append(tile)
    return [found[n] for n in rng.permutation(len(found))]


@pytest.mark.slow
def test_200_copies_among_5000_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = photographs(tmp_path)
    whole = [whole[n] for n in rng.permutation(len(whole))]
    images = [*whole, *tiles(whole, rng)][:5000]
    assert len(whole) >= 200
    assert len(images) == 5000
    contents = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "jpeg", quality=92)
        contents.append(stream.getvalue())
    wanted = {}
    for n in range(200):
        kind = KINDS[n % 5]
        wanted[n, len(contents)] = kind
        contents.append(modify(images[n], kind, rng))
    began = time.perf_counter()
    found = find_pairs(contents)
    seconds = time.perf_counter() - began
    pairs = {(pair.first, pair.second) for pair in found}
    by_kind = {kind: sum(pair in pairs for pair, k in wanted.items() if k == kind) for kind in KINDS}
    false = pairs - wanted.keys()
    print(f"found of 40 each: {by_kind}; false {len(false)} among {len(contents)}; {seconds:.1f} s")
    assert len(pairs & wanted.keys()) >= 0.95 * len(wanted)
    assert len(false) <= 0.01 * len(wanted)


def test_tiny_images_of_one_kind_must_be_much_nearer_than_the_next() -> None:
    """200 very similar outlines, and ten copies that are 25 % brighter."""
    from tests.data.faults import encoded

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(200):
        image = Image.new("L", (28, 28))
        left, top = rng.integers(4, 7, 2).tolist()
        ImageDraw.Draw(image).rectangle((left, top, 27 - left, 27 - top), fill=int(rng.integers(90, 200)))
        noise_HW = rng.normal(0, 6, (28, 28)) * (np.asarray(image) > 0)
        drawn.append(Image.fromarray((np.asarray(image) + noise_HW).clip(0, 255).astype(np.uint8)))
    drawn += [image.point(lambda value: round(1.25 * value)) for image in drawn[:10]]
    found = {(pair.first, pair.second) for pair in find_pairs([encoded(image) for image in drawn])}
    assert {(n, 200 + n) for n in range(10)} <= found
    assert len(found) <= 12


def test_pairs_by_features() -> None:
    """Features of copies are close together and far from all others; images of one class are not copies."""
    rng = torch.Generator().manual_seed(0)
    classes_ND = torch.randn(4, 32, generator=rng).repeat_interleave(25, 0)
    features_ND = classes_ND + torch.randn(100, 32, generator=rng)
    copies_ND = features_ND[:10] + 0.1 * torch.randn(10, 32, generator=rng)
    found = near_duplicates.find_pairs_by_features(torch.cat([features_ND, copies_ND]))
    assert {(pair.first, pair.second) for pair in found} == {(n, 100 + n) for n in range(10)}
    assert all(pair.is_by_features and pair.similarity >= near_duplicates.MIN_FEATURE_COSINE for pair in found)
    assert near_duplicates.find_pairs_by_features(features_ND[:3]) == []
