"""Semi-supervised training: images without labels in each step."""
