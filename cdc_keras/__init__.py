"""Category Disentangled Context (CDC) for Keras 3: extractors, the gate they drive, and how both are trained."""

import importlib

__version__ = "0.1.0"
__all__ = ["attach", "load", "usable_sites", "zoo"]
_PLACES = {"attach": "gate.attach", "usable_sites": "gate.attach", "load": "runs.trained"}


def __getattr__(name):
    if name == "zoo":
        return importlib.import_module("cdc_keras.zoo")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"cdc_keras.{_PLACES[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]
