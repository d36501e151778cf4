"""Studies: several trainings of one experiment, for cross-validation and learning curves."""
