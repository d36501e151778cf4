"""Drift: whether images are like those that a model was validated on, and what their labels would show."""
