"""Fitting of what joins image and columns on the features of a frozen backbone, and the choice among such models."""
