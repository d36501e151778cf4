"""Named experiments: each docstring says for what, from where, and what was measured.

A recipe is where an experiment begins; a file and flags change it. Figures: test accuracy, mean ± deviation of the
seeds named, on 2 CPU cores (AMD EPYC with AVX512-BF16), by the command `python jobs/train.py --recipe NAME ...`.
"""

from collections.abc import Callable

from classifier.config import Experiment
from classifier.errors import ConfigError
from classifier.setting import closest


def digits() -> Experiment:
    """Small drawn symbols of 8 to 16 pixels, a few thousand of them."""
    return Experiment()


RECIPES: dict[str, Callable[[], Experiment]] = {
    "digits": digits,
}


def recipe(name: str) -> Experiment:
    """The experiment of that name. ConfigError names the nearest if there is none."""
    if name not in RECIPES:
        near = closest(name, RECIPES)
        raise ConfigError(f"--recipe {name}: there is no such recipe{near or '; there are ' + ', '.join(RECIPES)}")
    return RECIPES[name]()


def recipe_for(path: str) -> str:
    """The recipe that fits a data set where none was asked for, by its kind alone."""
    return "digits"
