"""Which settings made a difference in a search."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna

from classifier.errors import ConfigError
from classifier.report.sentences import MIN_TRIALS, MIN_TRIALS_PER_SETTING
from classifier.search.pareto import MODES
from classifier.search.space import Choice, Space

from .leaderboard import Leaderboard
from .searcher import to_optuna_distribution

# The least R2 with which the settings predict the scores of trials that a forest's trees have not seen. For random
# scores it is larger in up to 10 % of searches of 8 trials, and in 0 to 8 % of those of 12 and more; for a setting that
# moves the score by twice its noise in 20 to 62 % of 8, 62 to 98 % of 16 and 92 to 100 % of 24 trials.
MIN_R2 = 0.1


def compute_importance(board: Leaderboard) -> dict[str, float]:
    """The share of the score's variance that each searched setting explains, largest first; empty if that cannot be
    told, or for one setting.

    fANOVA (Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", 2014) over all trials with a
    score; stopped trials count with their best score.
    """
    objective = board.experiment.search.objective[0]
    rows = [row for row in board.rank_rows() if board.best(row)]
    column = {name: [board.setting_value(row, name) for row in rows] for name in board.plan.space}
    searched = {
        name: values
        for name, values in board.plan.space.items()
        if len(set(column[name])) > 1 and all(value in values for value in column[name])
    }
    if len(searched) < 2 or len(rows) < max(MIN_TRIALS, MIN_TRIALS_PER_SETTING * len(searched)):
        return {}
    study = optuna.create_study(direction="maximize" if MODES[objective] == "max" else "minimize")
    distributions = {name: to_optuna_distribution(values) for name, values in searched.items()}
    scores = [board.best(row)[objective] for row in rows]
    if predictability(searched, column, scores) < MIN_R2:
        return {}
    for n, score in enumerate(scores):
        params = {name: column[name][n] for name in searched}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=board.experiment.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ConfigError):  # all scores are equal
        return {}
    return {name: round(float(share), 4) for name, share in shares.items() if share == share}


def predictability(space: Space, values: dict[str, list[Any]], scores: Sequence[float]) -> float:
    """How well settings predict the scores of trials that a random forest's trees were not fitted to: the out-of-bag R2
    (Breiman 2001), at most 1, and 0 or less if they do not. values: of each setting, one per trial."""
    from sklearn.ensemble import RandomForestRegressor

    if len(set(scores)) == 1:
        return 0.0
    columns = []
    for name, searched in space.items():
        if isinstance(searched, Choice):
            columns += [[float(value == choice) for value in values[name]] for choice in searched.values]
        else:
            columns.append([math.log(value) if searched.log else float(value) for value in values[name]])
    forest = RandomForestRegressor(64, oob_score=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trial that all trees were fitted to
        return float(forest.fit(np.transpose(columns), scores).oob_score_)
