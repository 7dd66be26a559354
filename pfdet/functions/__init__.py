"""Losses, scores and RoIAlign."""
