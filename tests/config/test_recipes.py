"""Default recipes: of data sets known by name; what is at a path is never judged by its name."""

from pathlib import Path

import pytest

from classifier.config.recipes import recipe_for


def test_a_path_is_not_judged_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"digits": "digits", "cifar10": "fashion-quick", "Fashion-MNIST": "fashion-quick", "food101": "auto"}
    assert {name: recipe_for(name) for name in known} == known
    for name in ("digits", "cifar10", "old-cifar-cameras", "mnist_museum"):
        (tmp_path / name).mkdir()
        assert recipe_for(name) == "auto"
