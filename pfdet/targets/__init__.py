"""Training targets of anchors and of regions of interest."""
