"""ImageNet (ILSVRC 2012): train/ and val/ with one folder per WordNet ID (O. Russakovsky et al., 2015)."""

import dataclasses
import io
import tarfile
from pathlib import Path

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.readers import folder
from classifier.data.readers.source import Source
from classifier.data.split_names import TEST, TRAIN, VALIDATION
from classifier.storage.torch_file import load_torch

_DEVKIT = "ILSVRC2012_devkit_t12"


def load_imagenet(config: DataConfig) -> Source:
    """Load it with val/ as the test split, since the real test set has no public labels; validation is from train/.

    Classes get their first English name if meta.bin (torchvision's) or the devkit's archive is in the folder.
    """

    def is_present(path: Path) -> bool:
        return (path / "train").is_dir() and (path / "val").is_dir()

    root = locate_dataset(config, "imagenet", ("imagenet", "ImageNet", "."), is_present, None)
    source = folder.read_folder(root, splits=(TRAIN, VALIDATION))  # test/ has no labels
    names = _read_english_names(root)
    splits_N = source.splits_N.copy()
    splits_N[splits_N == VALIDATION] = TEST
    english = [names.get(wnid, wnid) for wnid in source.class_names]
    # two classes are called crane, two maillot
    class_names = tuple(
        f"{name} ({wnid})" if english.count(name) > 1 else name
        for name, wnid in zip(english, source.class_names, strict=True)
    )
    return dataclasses.replace(source, name="imagenet", class_names=class_names, splits_N=splits_N, kind="photos")


def _read_english_names(root: Path) -> dict[str, str]:
    """Return WordNet ID -> first English name; empty if neither file exists."""
    path = root / "meta.bin"
    if path.is_file():
        try:
            words, _ = load_torch(path)
            return {wnid: names[0] for wnid, names in words.items()}
        except Exception as error:  # a corrupted file can fail in any way
            raise corrupted_file_error(path, error) from None
    path = root / f"{_DEVKIT}.tar.gz"
    return _read_devkit_names(path) if path.is_file() else {}


def _read_devkit_names(path: Path) -> dict[str, str]:
    from scipy.io import loadmat

    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile(f"{_DEVKIT}/data/meta.mat")
            assert member is not None
            synsets = loadmat(io.BytesIO(member.read()), squeeze_me=True)["synsets"]
        return {str(row["WNID"]): str(row["words"]).split(", ")[0] for row in synsets}
    except Exception as error:  # a corrupted file can fail in any way
        raise corrupted_file_error(path, error) from None
