"""Evaluation of a trained model: test split, calibration, hard examples, robustness, label errors."""
