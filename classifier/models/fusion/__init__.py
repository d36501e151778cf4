"""Models of an image with columns of a table: late fusion, and decision trees as tensors."""
