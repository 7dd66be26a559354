"""Losses, RoIAlign and the CPU convolution."""
