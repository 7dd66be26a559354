"""Boxes: IoU, coding, pairs of boxes, NMS and NMW, on NumPy and CuPy arrays."""
