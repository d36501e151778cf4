"""The folder of a run, what is recorded in it, and trackers."""
