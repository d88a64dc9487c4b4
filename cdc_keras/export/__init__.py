"""Trained networks as SavedModel, ONNX or LiteRT, for servers that have neither Keras nor this library."""
