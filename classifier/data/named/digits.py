"""The built-in data set: 1,797 handwritten digits of 8 x 8 pixels, shipped with scikit-learn.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import importlib.util
from pathlib import Path

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.readers.source import Source
from classifier.data.split_names import UNASSIGNED
from classifier.errors import DataError


def load_digits(config: DataConfig) -> Source:
    """Load the digits, scaled from 0 to 16 to 0 to 255. DataError if scikit-learn is not installed."""
    values = _load_values()
    images_NHW = ((values[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8)
    return Source(
        name="digits",
        class_names=tuple("0123456789"),
        ids=[f"digits/{n}" for n in range(len(values))],
        labels_N=values[:, 64].astype(np.int64),
        splits_N=np.full(len(values), UNASSIGNED, np.int8),
        images=images_NHW[:, None],
        kind="symbols",
    )


def _load_values() -> np.ndarray:
    """Return N x 65: pixels and the label. Read directly from the file if possible: importing sklearn takes seconds."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        raise DataError("digits come with scikit-learn, which is not installed: pip install scikit-learn")
    for folder in spec.submodule_search_locations or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",", dtype=np.int64)
    from sklearn import datasets

    pixels, labels_N = datasets.load_digits(return_X_y=True)
    return np.column_stack([pixels, labels_N]).astype(np.int64)
