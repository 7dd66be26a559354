"""Training: loading batches, the loss, the optimizer, evaluation and snapshots while it runs."""
