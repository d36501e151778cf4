"""The product of a training: weights, preprocessing, class names; a predictor over it; tables of predictions."""
