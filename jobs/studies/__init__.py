"""Several trainings as one: cross-validation and learning curves."""
