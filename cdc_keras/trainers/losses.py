"""The losses of the extraction network (Sec. 2, Eqs. 1 and 2), in `keras.ops`, in float32 whatever they are given."""

import keras
from keras import ops

from cdc_keras.choices import FOOL_LOSSES
from cdc_keras.devices import distribution
from cdc_keras.devices.precision import to_float32


def reconstruction_loss(images, reconstructions):
    """Returns MSE(x, x'), the mean over all elements.

    Args:
        images, reconstructions: (B, H, W, 3) in [-1, 1].
    """
    return ops.mean(ops.square(to_float32(images) - to_float32(reconstructions)))


def discriminator_loss(logits, labels):
    """Returns the mean cross-entropy of the category.

    Args:
        logits: (B, num_classes), D(T).
        labels: (B,) integer categories.
    """
    return ops.mean(cross_entropies(labels, logits))


def cross_entropies(labels, logits):
    """Returns the cross-entropy of each image, nats, (B,).

    Args:
        labels: (B,) integer categories, or (B, num_classes) shares that add up to 1, where images are mixed.
        logits: (B, num_classes).
    """
    if len(labels.shape) == 2:
        return keras.losses.categorical_crossentropy(labels, to_float32(logits), from_logits=True)
    return keras.losses.sparse_categorical_crossentropy(labels, to_float32(logits), from_logits=True)


def fooling_loss(logits, labels, kind="softmax", wrong_labels=None):
    """Returns L_fool of the auto-encoder (Eq. 1).

    "softmax" is Eq. 1: the mean probability D gives the correct category. Its gradient vanishes where D is confident,
    a weakness the other two do not have. "wrong_class_ce" is the loss of Lample et al. 2017: cross-entropy to another
    category, drawn uniformly. "uniform_ce": cross-entropy to the uniform distribution.

    Args:
        logits: (B, num_classes), D(T).
        labels: (B,) integer categories.
        kind: one of `choices.FOOL_LOSSES`.
        wrong_labels: (B,) other categories, needed by "wrong_class_ce"; see `draw_wrong_labels`.
    """
    logits = to_float32(logits)
    if kind == "softmax":
        correct = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        return ops.mean(ops.sum(ops.softmax(logits) * correct, axis=-1))
    if kind == "wrong_class_ce":
        return discriminator_loss(logits, wrong_labels)
    if kind == "uniform_ce":
        return -ops.mean(ops.log_softmax(logits))
    raise ValueError(f"fool_loss must be one of {', '.join(FOOL_LOSSES)}, not {kind!r}")


def draw_wrong_labels(labels, num_classes, seed):
    """Returns for each label another one, uniform over the other categories.

    Args:
        labels: (B,) integer categories.
        num_classes: number of categories.
        seed: a `keras.random.SeedGenerator`.
    """
    count = ops.shape(labels)[0] * distribution.replicas()
    shift = keras.random.randint((count,), 1, num_classes, dtype=labels.dtype, seed=seed)
    return (labels + distribution.share_of_batch(shift)) % num_classes


def repulsive_loss(reconstructions, counterfactuals, delta=0.01):
    """Returns (L_repul, active): the mean hinge of Eq. 2 and the share of the batch on which it is not zero, in [0, 1].

    Deviation: the distance is the root mean square. Eq. 2's plain L2 norm, over the 3,072 values of an image, is
    practically never as small as 0.01.

    Args:
        reconstructions: (B, H, W, 3), G2(T, g(y)).
        counterfactuals: (B, H, W, 3), G2(T, 1 - g(y)).
        delta: margin, in the unit of the images.
    """
    difference = to_float32(reconstructions) - to_float32(counterfactuals)
    # The square root has no gradient at 0, where an untrained condition starts.
    distance = ops.sqrt(ops.maximum(ops.mean(ops.square(difference), axis=(1, 2, 3)), 1e-12))
    hinge = ops.maximum(delta - distance, 0.0)
    return ops.mean(hinge), ops.mean(ops.cast(hinge > 0, hinge.dtype))
