"""Default recipes: what is at a path decides, and its name does not."""

from pathlib import Path

import pytest

from classifier.config.recipes import recipe_for


def test_the_default_recipe_is_chosen_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"digits": "digits", "cifar10": "fashion-quick", "Fashion-MNIST": "fashion-quick", "food101": "photos"}
    assert {name: recipe_for(name) for name in known} == known
    for name in ("digits", "cifar10", "old-cifar-cameras", "mnist_museum"):
        (tmp_path / name).mkdir()
        assert recipe_for(name) == "photos"
    (tmp_path / "signs" / "raw").mkdir(parents=True)
    (tmp_path / "signs" / "raw" / "train-images-idx3-ubyte").touch()
    assert recipe_for("signs") == recipe_for("signs/raw") == "fashion-quick"
