"""The Python interface: train, load and test a classifier in a few lines; what `classifier` exports."""
