"""Oxford-IIIT Pet: 7,349 photographs of 37 breeds of cats and dogs (O. Parkhi et al., 2012)."""

from pathlib import Path
from typing import Any

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.readers.source import Source, from_files
from classifier.data.split_names import TEST, TRAIN


def load_oxford_pets(config: DataConfig) -> Source:
    """Load it with trainval as train and test as test."""

    def download(datasets: Any, root: str) -> None:
        datasets.OxfordIIITPet(root, download=True)

    def is_present(path: Path) -> bool:
        return (path / "annotations" / "trainval.txt").is_file()

    root = locate_dataset(config, "oxford_iiit_pet", ("oxford-iiit-pet", "oxford_iiit_pet"), is_present, download)
    rows = []
    for word, split in (("trainval", TRAIN), ("test", TEST)):
        path = root / "annotations" / f"{word}.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise corrupted_file_error(path, error) from None
        for line in lines:
            if line.strip() and not line.startswith("#"):
                image = line.split()[0]  # the breed and a number: great_pyrenees_17
                id_, breed = f"images/{image}.jpg", image.rpartition("_")[0].replace("_", " ").title()
                rows.append((id_, root / id_, breed, split))
    return from_files("oxford_iiit_pet", rows, kind="photos")
