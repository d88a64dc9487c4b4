"""RandAugment, CutMix and MixUp of KerasCV's layers, with their random numbers drawn beforehand like all of a plan.

KerasCV's layers draw from generators with a state, so a stopped run could not go on with the batches it would have
seen. Here NumPy draws the numbers of an epoch (`draw`), and the layers compute with them (`augment_batch`). This module
is the only one that knows KerasCV.
"""

import functools

import keras
import numpy as np

from cdc_keras.errors import UserError

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

# RandAugment (Cubuk et al. 2020): operations per image, and mean and deviation of their strength, of 1. A share of
# 1 / 11 of the operations does nothing, as in the paper, whose eleventh operation is the identity.
OPERATIONS, MAGNITUDE, DEVIATION, RATE = 2, 0.3, 0.15, 10 / 11
# The order in which `RandAugment.get_standard_policy` returns its layers.
POLICY = (
    *("auto_contrast", "equalize", "solarize", "color", "contrast", "brightness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
CUTMIX_ALPHA, MIXUP_ALPHA = 1.0, 0.2  # Yun et al. 2019, Sec. 4.1; Zhang et al. 2018, Sec. 3.1
DRAWING = ("RandomShuffle", "RandomGamma", "RandomUniformInt")  # the operations by which CutMix and MixUp draw


def draw(kind, rng, steps, batch_size, image_size):
    """Returns what an epoch of augmentation needs: a dict of arrays with leading axes (steps, batch_size).

    * "none": nothing.
    * "randaugment": `operations` (..., 2), indices into `POLICY`, or its length for none, and `strengths` (..., 2, 3):
      two magnitudes in [0, 1] and a number in [-1, 1].
    * "cutmix": `partner`, the other image's place in the batch, and `top`, `left` and `side` of the square that is
      taken from it, pixels. The square lies inside the image, so its share of the pixels is that of the partner's
      label. (KerasCV's own draws also put it across the border, and count for the label what is cut off there.)
    * "mixup": `partner`, and `share`, the weight of an image beside its partner.

    Args:
        kind: one of `choices.AUGMENTATIONS`.
        rng: a `numpy.random.Generator`.
        steps, batch_size: of the epoch.
        image_size: height and width, pixels.

    Raises:
        UserError: there is something to do, and the backend is not TensorFlow.
    """
    if kind == "none":
        return {}
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"augmentation={kind} is computed by KerasCV inside tf.data: set KERAS_BACKEND=tensorflow")
    shape = (steps, batch_size)
    if kind == "randaugment":
        active = rng.random((*shape, OPERATIONS)) < RATE
        operations = np.where(active, rng.integers(len(POLICY), size=active.shape), len(POLICY))
        magnitudes = rng.normal(MAGNITUDE, DEVIATION, (*active.shape, 2)).clip(0, 1)
        strengths = np.concatenate([magnitudes, rng.uniform(-1, 1, (*active.shape, 1))], axis=-1)
        return {"operations": operations.astype(np.int32), "strengths": strengths.astype(np.float32)}
    partner = rng.permuted(np.tile(np.arange(batch_size, dtype=np.int32), (steps, 1)), axis=1)
    if kind == "mixup":
        return {"partner": partner, "share": rng.beta(MIXUP_ALPHA, MIXUP_ALPHA, shape).astype(np.float32)}
    side = (np.sqrt(1 - rng.beta(CUTMIX_ALPHA, CUTMIX_ALPHA, shape)) * image_size).astype(np.int32)
    top, left = (rng.integers(0, image_size - side + 1, dtype=np.int32) for _ in range(2))
    return {"partner": partner, "side": side, "top": top, "left": left}


def augment_batch(images, labels, plan, num_classes):
    """Returns (images, labels) of one step, augmented by what `draw` put into its plan.

    CutMix and MixUp give labels (B, num_classes): the share that each category has in the image.

    Args:
        images: (B, S, S, 3) tensor with values from 0 to 255.
        labels: (B,) integer categories.
        plan: one step of a plan; without the arrays of `draw`, images and labels are returned as they are.
        num_classes: number of categories.
    """
    if "operations" in plan:
        augmented = _rand_augment()(tf.cast(images, tf.float32), plan["operations"], plan["strengths"])
        return tf.ensure_shape(augmented, images.shape), labels
    if "partner" not in plan:
        return images, labels
    images, one_hot = tf.cast(images, tf.float32), tf.one_hot(labels, num_classes)
    if "share" in plan:
        return _layer_with_draws("MixUp")(images, one_hot, plan["partner"], *_gammas(plan["share"]))
    size = tf.shape(images)[1]
    # The layer rounds the side down; half a pixel keeps it from the next smaller one.
    share = 1 - tf.square((tf.cast(plan["side"], tf.float32) + 0.5) / tf.cast(size, tf.float32))
    whole = plan["side"] == size
    share = tf.where(whole, 0.0, share)
    middle_row, middle_column = (plan[start] + plan["side"] // 2 for start in ("top", "left"))
    return _layer_with_draws("CutMix")(images, one_hot, plan["partner"], *_gammas(share), middle_row, middle_column)


def _gammas(share):
    """Returns two numbers for which share = first / (first + second), as a beta distribution is drawn."""
    return share, 1 - share


@functools.cache
def _layer_with_draws(name):
    """Returns (images, labels, *draws) -> (images, labels): a KerasCV layer that is told what to draw.

    The layer is traced once, and the outputs of its drawing operations become inputs of the function.
    """
    import keras_cv

    layer = getattr(keras_cv.layers, name)(dtype="float32")

    def call(images, labels):
        outputs = layer({"images": images, "labels": labels})
        return outputs["images"], outputs["labels"]

    with tf.init_scope():
        signature = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None))]
        traced = tf.compat.v1.wrap_function(call, signature)
        draws = [op.outputs[0] for op in traced.graph.get_operations() if op.type in DRAWING]
        with_draws = traced.prune([*traced.inputs[:2], *draws], tuple(traced.outputs))
    return lambda *arguments: with_draws(*map(tf.convert_to_tensor, arguments))


@functools.cache
def _policy():
    """Returns the layers of KerasCV's RandAugment, in the order of `POLICY`."""
    import keras_cv

    with tf.init_scope():
        layers = keras_cv.layers.RandAugment.get_standard_policy((0, 255), MAGNITUDE, DEVIATION, seed=0)
    for layer in layers:
        layer.dtype_policy = "float32"  # whatever the precision of the network
    return layers


@functools.cache
def _rand_augment():
    """Returns (images, operations, strengths) -> images, traced once."""
    images = tf.TensorSpec((None, None, None, 3))
    operations, strengths = tf.TensorSpec((None, OPERATIONS), tf.int32), tf.TensorSpec((None, OPERATIONS, 3))

    @tf.function(input_signature=[images, operations, strengths])
    def augmented(images, operations, strengths):
        for i in range(OPERATIONS):
            groups = [tf.dynamic_partition(x, operations[:, i], len(POLICY) + 1) for x in (images, strengths[:, i])]
            rows = tf.dynamic_partition(tf.range(tf.shape(images)[0]), operations[:, i], len(POLICY) + 1)
            parts = [
                _changed(name, layer, *group)
                for name, layer, *group in zip(POLICY, _policy(), *(group[:-1] for group in groups), strict=True)
            ]
            images = tf.ensure_shape(tf.dynamic_stitch(rows, [*parts, groups[0][-1]]), images.shape)
        return images

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # the layer for histograms warns that TensorFlow makes a loop of it
    try:
        with tf.init_scope():
            return augmented.get_concrete_function()
    finally:
        logger.setLevel(level)


def _changed(name, layer, images, strengths):
    """Returns the images after one layer of the policy, or none where there are none."""
    return tf.cond(
        tf.shape(images)[0] > 0,
        lambda: layer.augment_images(images, transformations=transformations(name, strengths)),
        lambda: images,
    )


def transformations(name, strengths):
    """Returns what a layer of `POLICY` would draw for itself, of the distribution that RandAugment gives it.

    Args:
        name: of the layer.
        strengths: (B, 3): two magnitudes in [0, 1] and a number in [-1, 1].
    """
    magnitude, other, lean = tf.split(strengths, 3, axis=-1)  # (B, 1) each
    per_image = (slice(None), slice(None), None, None)
    even, zero = MAGNITUDE * lean, tf.zeros_like(lean)
    shear = magnitude * tf.sign(lean)
    return {
        "solarize": {"additions": 110 * magnitude[per_image], "thresholds": 255 * (1 - other[per_image])},
        "color": magnitude[per_image],
        "contrast": 1 + even[per_image],
        "brightness": 255 * even[per_image],
        "shear_x": {"shear_x": shear, "shear_y": None},
        "shear_y": {"shear_x": None, "shear_y": shear},
        "translate_x": {"width_translations": even, "height_translations": zero},
        "translate_y": {"width_translations": zero, "height_translations": even},
    }.get(name)
