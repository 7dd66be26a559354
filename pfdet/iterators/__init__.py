"""Which image comes next, and loading it ahead of time."""
