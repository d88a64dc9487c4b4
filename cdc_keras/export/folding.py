"""Batch norms folded into the convolutions before them: what a network computes in inference, by fewer operations."""

import keras
import numpy as np

from cdc_keras.networks import graph
from cdc_keras.networks.layers import FrozenExtractor

OUTPUT_AXIS = {keras.layers.Conv2D: 3, keras.layers.Conv2DTranspose: 2}  # of the kernel


def folded(network):
    """Returns a network that computes in inference what `network` does, in two thirds of the time where BN abounds.

    With s = gamma / sqrt(variance + epsilon), a convolution by W * s and a bias beta + (b - mean) * s stands for a
    convolution by W and b and the batch norm behind it, where nothing else takes what the convolution gives. The other
    layers, and all names but those of the batch norms, stay.

    Args:
        network: functional model.
    """
    calls = graph.trace(network)[1]
    made, taken = {}, {}
    for layer, inputs, output in calls:
        made[id(output)] = layer
        for tensor in inputs:
            taken.setdefault(id(tensor), []).append(layer)
    applied = [layer.name for layer, _, _ in calls]
    norms = {}  # name of the convolution: its batch norm
    for layer, inputs, _ in calls:
        before = made.get(id(inputs[0])) if isinstance(layer, keras.layers.BatchNormalization) else None
        if (
            type(before) in OUTPUT_AXIS
            and before.activation is keras.activations.linear
            and taken[id(inputs[0])] == [layer]
            and applied.count(before.name) == applied.count(layer.name) == 1
        ):
            norms[before.name] = layer
    gone = {layer.name for layer in norms.values()}

    def call(layer, *args, **kwargs):
        if layer.name in norms:
            return _with_norm(layer, norms[layer.name], args[0])
        if layer.name in gone:
            return args[0]
        if isinstance(layer, FrozenExtractor):
            return FrozenExtractor(folded(layer.network), name=layer.name)(*args, **kwargs)
        return layer(*args, **kwargs)

    return graph.rebuild(network, call)


def _with_norm(convolution, norm, x):
    """Returns what a new convolution gives for x, in the place of `convolution` and `norm`."""
    kernel, bias = convolution.kernel.numpy(), convolution.bias.numpy() if convolution.use_bias else 0
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    scale = (norm.gamma.numpy() if norm.scale else 1) / np.sqrt(variance + norm.epsilon)
    shape = [1, 1, 1, 1]
    shape[OUTPUT_AXIS[type(convolution)]] = -1
    layer = type(convolution).from_config({**convolution.get_config(), "use_bias": True})
    output = layer(x)
    layer.set_weights(
        [kernel * scale.reshape(shape), (norm.beta.numpy() if norm.center else 0) + (bias - mean) * scale]
    )
    return output
