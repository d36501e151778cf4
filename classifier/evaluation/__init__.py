"""Judging a trained model: the test split, calibration, hard examples, robustness, label errors."""
