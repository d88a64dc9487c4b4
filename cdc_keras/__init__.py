"""Category Disentangled Context (CDC) for Keras 3: extractors, the gate they drive, and how both are trained."""

__version__ = "0.1.0"
