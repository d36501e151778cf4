"""Which settings made a difference in a search."""

import warnings

import optuna

from classifier.errors import ConfigError
from classifier.search.pareto import MODES

from .leaderboard import Leaderboard
from .searcher import to_optuna_distribution

# With fewer trials than this, importance would only describe noise.
MIN_TRIALS = 6


def compute_importance(board: Leaderboard) -> dict[str, float]:
    """The share of the score's variance that each searched setting explains, largest first; empty with few trials or
    one setting.

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
    if len(rows) < MIN_TRIALS or len(searched) < 2:
        return {}
    study = optuna.create_study(direction="maximize" if MODES[objective] == "max" else "minimize")
    distributions = {name: to_optuna_distribution(values) for name, values in searched.items()}
    for row in rows:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: board.setting_value(row, name) for name in searched},
                distributions=distributions,
                value=board.best(row)[objective],
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=board.experiment.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ConfigError):  # all scores are equal
        return {}
    return {name: round(float(share), 4) for name, share in shares.items() if share == share}
