"""How long a training step takes on many GPUs, from its parts."""
