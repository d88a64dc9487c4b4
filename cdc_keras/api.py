"""The functions of the package's face: `cdc_keras.attach`, `usable_sites`, `load`, and from pixels to categories."""

import functools
import os
from collections.abc import Sequence

import keras
import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from cdc_keras.choices import record_name
from cdc_keras.data.pipeline import scale
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.gate import attach as gate
from cdc_keras.gate import sites as gate_sites
from cdc_keras.runs.trained import load, load_trained
from cdc_keras.zoo.loading import info

__all__ = ["attach", "decode_predictions", "load", "preprocess_input", "usable_sites"]


@functools.wraps(gate.attach)
def attach(model, extractor, sites=None, **options):
    return gate.attach(model, _extractor(extractor, options.get("init") == "spread"), sites, **options)


@functools.wraps(gate_sites.usable_sites)
def usable_sites(model, extractor):
    return gate_sites.usable_sites(model, _extractor(extractor))


@keras_defaults()
def preprocess_input(images: ArrayLike) -> np.ndarray:
    """Returns images in [-1, 1], as every network of this package takes them.

    Args:
        images: (B, S, S, 3) or one image (S, S, 3), pixels from 0 to 255, uint8 or floats; a NumPy array or a tensor.
            They are not resized: S is the network's `input_shape[1]`.

    Returns:
        A float32 array, or for a tensor a tensor, of the same shape.

    Raises:
        ValueError: for another shape, or values that are no pixels.

    Examples:
        >>> import numpy as np
        >>> from cdc_keras import preprocess_input
        >>> pixels = np.full((1, 32, 32, 3), 255, "uint8")
        >>> preprocess_input(pixels)[0, 0, 0].tolist()
        [1.0, 1.0, 1.0]
    """
    is_tensor = keras.ops.is_tensor(images)
    images = images if is_tensor else np.asarray(images)
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or shape[-1] not in (3, None):
        raise ValueError(f"images are (B, S, S, 3), or one is (S, S, 3), and these are {shape}; give colour images")
    if is_tensor:
        return scale(images)
    if images.dtype.kind not in "uif" or images.size and not (images.min() >= 0 and images.max() <= 255):
        raise ValueError("pixels are numbers from 0 to 255, and these are not; give images that are not scaled yet")
    return images.astype("float32") / np.float32(127.5) - np.float32(1)


def decode_predictions(
    predictions: ArrayLike, class_names: Sequence[str] | str | os.PathLike[str], top: int = 5
) -> list[list[tuple[str, float]]]:
    """Returns the most likely categories of each image and their probabilities, likeliest first.

    Args:
        predictions: (B, num_classes) logits, as the classifiers of this package give them.
        class_names: the `num_classes` names in the order of the logits; or the place of the classifier, which knows
            them: "zoo:<name>", or the path of a run.
        top: how many categories for each image, at most.

    Returns:
        For each image a list of (class name, probability in [0, 1]); a softmax of the logits.

    Raises:
        ValueError: the predictions have another shape, are not finite, or do not fit the names.
        UserError: there is no such record or run.

    Examples:
        >>> from cdc_keras import decode_predictions
        >>> for name, probability in decode_predictions([[0.0, 2.0, 1.0]], ["cat", "dog", "ship"], top=2)[0]:
        ...     print(f"{name} {probability:.0%}")
        dog 67%
        ship 24%
    """
    logits = np.asarray(keras.ops.convert_to_numpy(predictions), "float64")
    if isinstance(class_names, str | os.PathLike):
        class_names = _class_names(class_names)
    if logits.ndim != 2 or logits.shape[1] != len(class_names):
        raise ValueError(
            f"predictions for {len(class_names)} categories are logits (B, {len(class_names)}), not {logits.shape}; "
            "give the names of the classifier that made them"
        )
    if not np.isfinite(logits).all():
        raise ValueError(
            "predictions are finite logits, and some of these are not; check what the classifier was given"
        )
    if top < 1:
        raise ValueError(f"top is at least 1, not {top}")
    probabilities = scipy.special.softmax(logits, axis=1)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [[(class_names[k], float(row[k])) for k in best] for best, row in zip(order, probabilities, strict=True)]


def _extractor(extractor, spread=False):
    """Returns the extractor that is given as a network, or by the place of a trained one; with V if `spread`."""
    if isinstance(extractor, str | os.PathLike):
        return load(extractor, spread=True) if spread else load_trained(extractor, "extractor").network
    return extractor


def _class_names(place):
    """Returns the names of the categories of a trained classifier."""
    name = record_name(place)
    if name is None:
        return load_trained(place, "classifier").class_names
    record = info(name)
    if record.kind != "classifier":
        raise UserError(f"{place} is a record of kind {record.kind}, which predicts no category; give a classifier's")
    return record.class_names
