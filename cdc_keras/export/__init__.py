"""Trained networks as SavedModel or ONNX, for servers that have neither Keras nor this library."""
