"""Hyperparameter search without Ray: space, portfolio, Pareto fronts, linear probe, time budget."""
