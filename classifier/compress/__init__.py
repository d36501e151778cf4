"""Smaller and faster models: int8, pruning, distillation; each is judged in milliseconds and by a paired test."""
