"""Boxes: overlap, coding, pairs of boxes by image and class, suppression. NumPy and CuPy arrays."""
