"""Training: batches, loss, optimizer, validation, snapshots, experts and the dry run."""
