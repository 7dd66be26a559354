"""Global image sequences, their distribution over ranks, and loading images ahead of time."""
