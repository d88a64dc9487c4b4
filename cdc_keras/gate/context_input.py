"""What the extractor sees of a model's input: the same images in [-1, 1], as far as the model's first layers tell."""

import numpy as np
from keras import layers

from cdc_keras.gate.parts import CONTEXT_INPUT

HINT = "give to_context_input, say keras.layers.Rescaling(1 / 127.5, offset=-1) for pixels from 0 to 255"
SIZING = (layers.Resizing, layers.CenterCrop)
AUGMENTATION = layers.RandomFlip.__module__.rpartition(".")[0]  # where Keras has all layers that augment images
# (low, high) of the images, by the standard deviations and means that a leading Normalization can have of such images.
RANGES = {
    (0.0, 255.0): ((30, 95), (50, 205)),
    (0.0, 1.0): ((0.1, 0.35), (0.2, 0.8)),
    (-1.0, 1.0): ((0.2, 0.7), (-0.6, 0.6)),
}


def image_source(model, calls):
    """Returns (tensor, layer): the images behind augmentation and resizing, with which a model may begin.

    There the extractor looks, so that T and the features are of one image.

    Args:
        model, calls: what `graph.trace` returned.

    Returns:
        tensor: images (B, H, W, C).
        layer: what gives them, None for the model's input.
    """
    tensor, source = model.inputs[0], None
    while (follower := _only_follower(tensor, calls)) is not None:
        layer, output = follower
        if not (augments(layer) or isinstance(layer, (*SIZING, layers.Identity))):
            break
        tensor, source = output, layer
    return tensor, source


def to_unit_range(model, calls):
    """Returns the layer that brings what `image_source` gives to [-1, 1], None where it is there already.

    The range is 0 to 255, 0 to 1 or -1 to 1, as a `Rescaling` or `Normalization` tells that follows there. A model that
    goes on with neither takes images in [-1, 1], as all networks here.

    Raises:
        ValueError: the layer that follows changes the range in a way that does not tell what it was.
    """
    follower = _only_follower(image_source(model, calls)[0], calls)
    layer = None if follower is None else follower[0]
    limits = -1.0, 1.0
    if isinstance(layer, layers.Rescaling):
        limits = _range_of_rescaling(layer)
    elif isinstance(layer, layers.Normalization):
        limits = _range_of_normalization(layer)
    elif layer is not None and (not isinstance(layer, layers.Layer) or isinstance(layer, layers.Lambda)):
        limits = None
    if limits is None:
        raise ValueError(f"the model begins with {layer.name!r}, which does not tell the range of its images; {HINT}")
    low, high = limits
    scale = 2 / (high - low)
    return layers.Rescaling(scale, offset=-1 - low * scale, name=CONTEXT_INPUT) if limits != (-1.0, 1.0) else None


def augments(layer):
    """Whether a layer changes images at random while training."""
    return type(layer).__module__.startswith(AUGMENTATION) and not isinstance(layer, SIZING)


def _only_follower(tensor, calls):
    """Returns (layer, output) of what a tensor goes into, None if that is not one layer."""
    followers = [(layer, output) for layer, inputs, output in calls if any(x is tensor for x in inputs)]
    return followers[0] if len(followers) == 1 else None


def _range_of_rescaling(layer):
    """Returns (low, high) of the images, which a `Rescaling` brings to about [0, 1] or [-1, 1]; None if it is unclear."""
    scale, offset = np.unique(layer.scale), np.unique(layer.offset)
    if len(scale) != 1 or len(offset) != 1:
        return None
    for low, high in RANGES:
        ends = scale[0] * low + offset[0], scale[0] * high + offset[0]
        if np.allclose(ends, (-1, 1), atol=0.02) or np.allclose(ends, (0, 1), atol=0.02):
            return low, high
    return None


def _range_of_normalization(layer):
    """Returns (low, high) of images with the mean and variance of a `Normalization`; None if it is unclear."""
    if layer.input_mean is None:  # to be adapted to data: it is not known here
        return None
    mean, deviation = np.ravel(layer.input_mean), np.sqrt(np.ravel(layer.input_variance))
    fits = [
        limits
        for limits, (deviations, means) in RANGES.items()
        if all(deviations[0] <= x <= deviations[1] for x in deviation) and all(means[0] <= x <= means[1] for x in mean)
    ]
    return fits[0] if fits else None
