"""What a search learned: which settings made the difference."""

import warnings

import optuna

from classifier.errors import ConfigError
from classifier.search.pareto import MODES
from jobs.search.leaderboard import Leaderboard
from jobs.search.searcher import distribution

# With fewer trials than this, importance would be a story about noise.
FEWEST = 6


def importance(board: Leaderboard) -> dict[str, float]:
    """The share of the score's variance that each searched setting explains, largest first; empty for few trials or one
    setting.

    fANOVA (Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", 2014) over all trials with a
    score, stopped ones with the score that they had.
    """
    objective = board.experiment.search.objective[0]
    rows = [row for row in board.ranked() if board.best(row)]
    inside = {
        name: values
        for name, values in board.plan.space.items()
        if len({board.value(row, name) for row in rows}) > 1 and all(board.value(row, name) in values for row in rows)
    }
    if len(rows) < FEWEST or len(inside) < 2:
        return {}
    study = optuna.create_study(direction="maximize" if MODES[objective] == "max" else "minimize")
    distributions = {name: distribution(values) for name, values in inside.items()}
    for row in rows:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: board.value(row, name) for name in inside},
                distributions=distributions,
                value=board.best(row)[objective],
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=board.experiment.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, ConfigError):  # all scores are equal: nothing to explain
        return {}
    return {name: round(float(share), 4) for name, share in found.items() if share == share}
