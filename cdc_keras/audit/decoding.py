"""What the extractor's own players make of T: its discriminator, its decoder, and a classifier of what that draws."""

import keras
import numpy as np

from cdc_keras.data.pipeline import in_batches, scale
from cdc_keras.networks.spread import spread_of


def contexts(extractor, images):
    """Returns T of the images, (N, h, w, C) float32 NumPy.

    Args:
        extractor: functional model, images in [-1, 1] -> T.
        images: (N, H, W, 3) uint8.
    """
    return in_batches(lambda x: extractor.predict_on_batch(scale(x)), images).astype(np.float32)


def discriminated(disentangler, context):
    """Returns the category that the extractor's own D takes each T for, (N,) integers."""

    def categories(t):
        return keras.ops.argmax(sum(keras.ops.softmax(logits) for logits in disentangler.discriminate(t)), axis=-1)

    return in_batches(categories, context)


def reconstruction_errors(disentangler, images, context, labels):
    """Returns the mean squared difference of each G2(T, g(y)) and an image, in [-1, 1], (N,) floats.

    Args:
        disentangler: a trained `Disentangler`.
        images, context, labels: (N, H, W, 3) uint8, (N, h, w, C) T, and (N,) integers y.
    """

    def errors(x, t, y):
        return np.mean((np.asarray(scale(x)) - _decoded(disentangler, t, y)) ** 2, axis=(1, 2, 3))

    return in_batches(errors, images, context, labels)


def classified(classifier, images):
    """Returns the category that a classifier takes each of (N, H, W, 3) uint8 images for, (N,) integers."""
    return in_batches(lambda x: classifier.predict_on_batch(scale(x)).argmax(-1), images)


def classified_decoded(classifier, disentangler, context, labels):
    """Returns the category that a classifier takes each G2(T, g(y)) for, (N,) integers.

    Args:
        classifier: functional model, images in [-1, 1] -> logits, not trained on what G2 draws.
        disentangler: a trained `Disentangler`.
        context, labels: (N, h, w, C) T and (N,) integers y.
    """
    return in_batches(
        lambda t, y: classifier.predict_on_batch(_decoded(disentangler, t, y)).argmax(-1), context, labels
    )


def spread(disentangler, context):
    """Returns V(T), where the picture would change if the category did (`networks.spread`): (N, h, w) floats.

    Args:
        disentangler: a trained `Disentangler`.
        context: (N, h, w, C) T.
    """
    return in_batches(spread_of(disentangler.decoder).predict_on_batch, context)[..., 0]


def other_labels(labels, num_classes, seed):
    """Returns for each of (N,) labels another one, drawn uniformly from the rest."""
    steps = np.random.default_rng(seed).integers(1, num_classes, size=len(labels))
    return (labels + steps) % num_classes


def _decoded(disentangler, context, labels):
    """Returns G2(T, g(y)), NumPy."""
    condition = keras.ops.convert_to_numpy(disentangler.condition(labels))
    inputs = [context, condition] if disentangler.conditional else context
    return disentangler.decoder.predict_on_batch(inputs)
