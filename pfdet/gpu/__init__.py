"""Faster functions on the GPU: convolution and batch normalization by cuDNN 9, for CuPy 14."""
