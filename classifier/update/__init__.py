"""Updating a model with newly labelled images and new classes, while what it knew is replayed."""
