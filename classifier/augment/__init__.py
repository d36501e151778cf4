"""Random changes of training images, batched on tensors; `policy` decides and applies."""
