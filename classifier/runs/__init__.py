"""Run folders: their lock, history, result, TensorBoard events and trackers."""
