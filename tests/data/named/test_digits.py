"""The built-in digits are those of scikit-learn."""

import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
import sklearn.datasets

from classifier.config.sections import DataConfig
from classifier.data.named.digits import load_digits
from classifier.errors import DataError


def test_digits_equal_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    source, reference = load_digits(DataConfig()), sklearn.datasets.load_digits(return_X_y=True)
    assert isinstance(source.images, np.ndarray)
    np.testing.assert_array_equal(source.labels_N, reference[1])
    np.testing.assert_array_equal(source.images[:, 0].reshape(-1, 64), np.floor(reference[0] * 255 / 16 + 0.5))
    assert source.kind == "symbols"
    moved = types.SimpleNamespace(submodule_search_locations=["/nowhere"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: moved)
    by_import = load_digits(DataConfig())  # without the file, through scikit-learn's own function
    np.testing.assert_array_equal(np.asarray(by_import.images), source.images)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="digits come with scikit-learn, which is not installed"):
        load_digits(DataConfig())


def test_digits_load_without_importing_scikit_learn() -> None:
    code = """
import sys
import types
from classifier.config.sections import DataConfig
from classifier.data import load
load(DataConfig())
print(*sorted({name.partition('.')[0] for name in sys.modules} & {'sklearn', 'scipy', 'torchvision', 'pyarrow'}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
