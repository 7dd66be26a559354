"""From a network's outputs to detections: prediction, suppression, ensembling."""
