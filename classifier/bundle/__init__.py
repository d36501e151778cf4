"""Trained models on disk: weights, preprocessing and class names; a predictor; tables of predictions."""
