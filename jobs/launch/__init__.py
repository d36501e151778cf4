"""Run work on a Ray cluster or under torchrun: workers, remote calls, storage of a run."""
