"""V, the spread of what the decoder draws: where the picture would change if the category did.

V(T) is the standard deviation of G2(T, y) over categories y, averaged over the colours and down to T's resolution.
Where the decoder paints the category it is told, V is large on the object and small beside it, and it needs no label.
"""

import keras
import numpy as np
from keras import layers, ops

from cdc_keras.networks import autoencoder, graph

# A pass of the decoder costs about as much as one of the encoder. On `shapes` V of five categories finds the object as
# well as V of all ten: its IoU is lower by at most 0.012.
MOST_CATEGORIES = 5


def spread_extractor(encoder, decoder):
    """Returns the network images (B, S, S, 3) in [-1, 1] -> [T (B, h, h, C), V (B, h, h, 1)]; it shares all weights.

    T is without its noise, if it has any, so that the same image has the same V.

    Args:
        encoder: as `autoencoder.encoder` builds it.
        decoder: its `autoencoder.decoder`, which is told the category.

    Raises:
        ValueError: the decoder is told no category.
    """
    encoder = autoencoder.mean_encoder(encoder)
    images, context = encoder.inputs[0], encoder.outputs[0]
    return graph.flatten(keras.Model(images, [context, spread_of(decoder)(context)], name=encoder.name))


def spread_of(decoder):
    """Returns the network T (B, h, h, C) -> V (B, h, h, 1) of a decoder, whose weights it shares.

    Raises:
        ValueError: the decoder is told no category.
    """
    if len(decoder.inputs) < 2:
        raise ValueError("V needs a decoder that is told the category, and a GM's is not; take a CGM or a CDCGM")
    context = keras.Input(decoder.inputs[0].shape[1:])
    repeated, conditions = EveryCategory(decoder.inputs[1].shape[-1], name="spread_categories")(context)
    spread = Spread(context.shape[1], name="spread")([context, decoder([repeated, conditions])])
    return keras.Model(context, spread)


@keras.saving.register_keras_serializable("cdc_keras")
class EveryCategory(layers.Layer):
    """T under several categories: (B, h, w, C) -> T of every image K times, (B K, h, w, C), and conditions, (B K, N).

    K is `num_classes`, or `MOST_CATEGORIES` evenly spaced ones of more.

    Args:
        num_classes: N, number of categories.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        count = min(num_classes, MOST_CATEGORIES)
        self.conditions = np.eye(num_classes, dtype="float32")[np.arange(count) * num_classes // count]

    def call(self, context):
        repeated = ops.repeat(context, len(self.conditions), axis=0)
        conditions = ops.convert_to_tensor(self.conditions, context.dtype)
        return repeated, ops.tile(conditions, (ops.shape(context)[0], 1))

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[1:]), (None, self.num_classes)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("cdc_keras")
class Spread(layers.Layer):
    """V, (B, size, size, 1), of pictures under K categories each; call with [T of B images, (B K, H, W, 3) pictures].

    Args:
        size: height and width of V, a divisor of the pictures'.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        context, pictures = inputs
        _, height, width, channels = pictures.shape
        pictures = ops.reshape(pictures, (ops.shape(context)[0], -1, height, width, channels))
        deviation = ops.mean(ops.std(pictures, axis=1), axis=-1, keepdims=True)
        return ops.average_pool(deviation, (height // self.size, width // self.size), data_format="channels_last")

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.size, self.size, 1)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("cdc_keras")
class RelativeSpread(layers.Layer):
    """V of each image over twice its mean there, at most 1: (B, h, w, 1) in [0, 1]."""

    def call(self, spread):
        mean = ops.mean(spread, axis=(1, 2, 3), keepdims=True)
        return ops.minimum(spread / (2.0 * mean + 1e-6), 1.0)
