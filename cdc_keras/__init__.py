"""Category Disentangled Context (CDC) for Keras 3: extractors, the gate they drive, and how both are trained.

Nothing heavy is imported before it is used: `import cdc_keras` loads neither Keras nor TensorFlow. Once Keras is
imported, before or after, it knows the layers of gated models, so that `keras.models.load_model` opens them.
TensorFlow, if it is imported after, computes convolutions by oneDNN (`backend.use_onednn`).
"""

import importlib

import wrapt

from cdc_keras.backend import start_keras, use_onednn

__version__ = "0.1.0"
__all__ = ["__version__", "attach", "decode_predictions", "load", "preprocess_input", "usable_sites", "zoo"]

use_onednn()


@wrapt.when_imported("keras")
def _register_layers(keras):
    del keras
    # A module of ours may import Keras and be half-way itself, so networks/layers.py imports no names from ours.
    importlib.import_module("cdc_keras.networks.layers")


def __getattr__(name):
    if name == "zoo":
        return importlib.import_module("cdc_keras.zoo")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    start_keras()
    return getattr(importlib.import_module("cdc_keras.api"), name)


def __dir__():
    return list(__all__)
