"""Model of the time of a training step on many GPUs."""
