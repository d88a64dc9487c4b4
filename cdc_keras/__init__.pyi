import os
from collections.abc import Iterable

import keras

from cdc_keras import zoo as zoo
from cdc_keras.api import decode_predictions as decode_predictions
from cdc_keras.api import preprocess_input as preprocess_input
from cdc_keras.gate.sites import Site
from cdc_keras.runs.trained import load as load

__version__: str

def attach(
    model: keras.Model,
    extractor: keras.Model | str | os.PathLike[str] | None,
    sites: Iterable[str | Site] | str | None = None,
    *,
    copy: bool = False,
    reduction: int | None = None,
    init: str = "identity",
    residual: bool = True,
    attention: bool = True,
    compatibility: str = "mean",
    after_relu: bool = False,
    to_context_input: keras.layers.Layer | None = None,
    shuffle_context: bool = False,
) -> keras.Model: ...
def usable_sites(model: keras.Model, extractor: keras.Model | str | os.PathLike[str]) -> list[Site]: ...
