"""Export of trained networks to ONNX, and prediction with ONNX Runtime."""
