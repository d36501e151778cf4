"""Where work runs: the Ray cluster, training workers, torchrun, remote calls."""
