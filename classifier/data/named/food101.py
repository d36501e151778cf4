"""Food-101: 101,000 photographs of dishes (L. Bossard, M. Guillaumin, L. Van Gool, 2014)."""

import json
from pathlib import Path
from typing import Any

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.readers.source import Source, from_files
from classifier.data.split_names import TEST, TRAIN


def load_food101(config: DataConfig) -> Source:
    """Load it with the splits of meta/train.json and meta/test.json."""

    def download(datasets: Any, root: str) -> None:
        datasets.Food101(root, download=True)

    def is_present(path: Path) -> bool:
        return (path / "meta" / "train.json").is_file()

    root = locate_dataset(config, "food101", ("food-101", "food101"), is_present, download)
    rows = []
    for word, split in (("train", TRAIN), ("test", TEST)):
        path = root / "meta" / f"{word}.json"
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))
            for class_name, images in listed.items():
                for image in images:
                    id_ = f"images/{image}.jpg"
                    rows.append((id_, root / id_, class_name.replace("_", " "), split))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise corrupted_file_error(path, error) from None
    return from_files("food101", rows, kind="photos")
