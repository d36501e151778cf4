"""The training loop and all it is made of: state, optimizers, schedule, losses, EMA, checkpoints."""
