"""Data augmentation, batched on tensors; `policy` resolves the settings and applies them."""
