"""What the extractor sees of a model's input: the same images in [-1, 1], as far as the model's first layers tell."""

import numpy as np
from keras import layers

from cdc_keras.gate.parts import CONTEXT_INPUT

HINT = "give to_context_input, say keras.layers.Rescaling(1 / 127.5, offset=-1) for pixels from 0 to 255"
SIZING = (layers.Resizing, layers.CenterCrop)
AUGMENTATION = layers.RandomFlip.__module__.rpartition(".")[0]  # where Keras has all layers that augment images
RANGES = (0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)  # that images can have


def image_source(model, calls):
    """Returns (tensor, layer): the images behind augmentation and resizing, with which a model may begin.

    There the extractor looks, so that T and the features are of one image. The tensor is (B, H, W, C); the layer gives
    it, None for the model's input. `model` and `calls` are what `graph.trace` returned.
    """
    tensor, source = model.inputs[0], None
    while (follower := _only_follower(tensor, calls)) is not None:
        layer, output = follower
        if not (augments(layer) or isinstance(layer, (*SIZING, layers.Identity))):
            break
        tensor, source = output, layer
    return tensor, source


def to_unit_range(images, calls):
    """Returns the layer that brings the tensor that `image_source` gives to [-1, 1], None where it is there already.

    The range is one of `RANGES`, as a `Rescaling` or `Normalization` tells that follows there. A model that goes on
    with neither takes images in [-1, 1], as all networks here.

    Raises:
        ValueError: what follows changes the range in a way that does not tell what it was.
    """
    layer = (_only_follower(images, calls) or [None])[0]
    low, high = RANGES[-1]
    operation = layer is not None and not isinstance(layer, layers.Layer)
    if operation or isinstance(layer, layers.Rescaling | layers.Normalization | layers.Lambda):
        low, high = _range(layer, images.shape[-1])
    scale = 2 / (high - low)
    return layers.Rescaling(scale, offset=-1 - low * scale, name=CONTEXT_INPUT) if (low, high) != RANGES[-1] else None


def augments(layer):
    """Whether a layer changes images at random while training."""
    return type(layer).__module__.startswith(AUGMENTATION) and not isinstance(layer, SIZING)


def _only_follower(tensor, calls):
    """Returns (layer, output) of what a tensor goes into, None if that is not one layer."""
    followers = [(layer, output) for layer, inputs, output in calls if any(x is tensor for x in inputs)]
    return followers[0] if len(followers) == 1 else None


def _range(layer, channels):
    """Returns (low, high) of images that a layer brings to about [0, 1], or to both sides of 0."""
    adapted = isinstance(layer, layers.Normalization) and layer.input_mean is None  # to data: not known here
    if isinstance(layer, layers.Rescaling | layers.Normalization) and not adapted:
        for limits in RANGES:
            low, high = (np.asarray(layer(np.full((1, 1, 1, channels), x))) for x in limits)
            unit, centred = np.maximum(abs(low), abs(high - 1)), np.minimum(-low, high)
            if (unit < 0.02).all() or ((0.7 < centred) & (np.maximum(-low, high) < 4)).all():
                return limits
    raise ValueError(f"the model begins with {layer.name!r}, which does not tell the range of its images; {HINT}")
