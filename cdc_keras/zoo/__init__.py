"""Released models: `load("cifar100")` returns a network whose weights were checked before they were read."""

import importlib

from cdc_keras.backend import start_keras

__all__ = ["info", "load", "names"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    start_keras()
    return getattr(importlib.import_module("cdc_keras.zoo.loading"), name)


def __dir__():
    return __all__
