"""Numbers about predictions: confusion counts, scores with intervals, calibration, significance, power laws."""
