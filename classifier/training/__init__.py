"""The training loop and its parts: state, optimizers, schedules, losses, EMA, feature cache, checkpoints."""
