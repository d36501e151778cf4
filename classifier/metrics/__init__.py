"""Metrics of predictions: confusion matrices, scores with intervals, calibration, significance, power laws."""
