"""Inference: prediction, test-time augmentation, post-processing and ensembles."""
