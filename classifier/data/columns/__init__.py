"""Columns of a table that join the image: their kinds, and the numbers that a model sees. No torch."""
