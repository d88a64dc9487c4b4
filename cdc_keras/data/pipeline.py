"""From splits to batches: a plan of the epoch drawn by NumPy, carried out by the backend that trains.

A plan says for every step which examples it takes and how each is cropped and flipped. It is a pure function of (seed,
epoch), so both backends see the same batches and a run can go on in mid-epoch. Crop, reflection and flip are all one
thing: for each image, which source row and which source column every output pixel comes from. The plan holds three
numbers an image for that, because the pixels' positions themselves would take gigabytes for an epoch of ImageNet.
"""

import keras
import numpy as np

from cdc_keras.data import augmentation as augmentations
from cdc_keras.data.dataset import StreamSplit
from cdc_keras.devices import distribution
from cdc_keras.errors import UserError

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def epoch_plan(size, image_size, *, batch_size, seed, epoch, crop_padding=0, flip=False, augmentation="none"):
    """Returns the plan of a training epoch: a dict of arrays with leading axes (steps, batch_size).

    `rows` (int32) are example indices, every example at most once, the incomplete last batch left out; `down` and
    `right` (int32) say by how many pixels the crop is moved, each in [-crop_padding, crop_padding], and `flipped`
    (bool) whether it is flipped. What else stands in it for `augmentation` is said at `augmentation.draw`.

    Args:
        size: number of examples to draw from.
        image_size: height and width, pixels.
        batch_size: examples a step; at most `size`.
        seed, epoch: every pair gives another order and other augmentation, the same pair the same.
        crop_padding: reflected pixels on each side before the random crop, fewer than `image_size`; the paper has 4 at
            32 px.
        flip: flip half of the images horizontally.
        augmentation: one of `choices.AUGMENTATIONS`, after crop and flip.
    """
    if size < batch_size:
        raise ValueError(f"a batch of {batch_size} does not fit into {size} training examples; lower batch_size")
    rng = np.random.default_rng((seed, epoch))
    steps = size // batch_size
    shape = (steps, batch_size)
    rows = rng.permutation(size)[: steps * batch_size].reshape(shape)
    down = rng.integers(-crop_padding, crop_padding + 1, shape)
    right = rng.integers(-crop_padding, crop_padding + 1, shape)
    flipped = rng.random(shape) < (0.5 if flip else 0.0)
    return {
        "rows": rows.astype(np.int32),
        "down": down.astype(np.int32),
        "right": right.astype(np.int32),
        "flipped": flipped,
        **augmentations.draw(augmentation, rng, *shape, image_size),
    }


def whole_plan(size, *, batch_size, order_seed=None):
    """Returns the plans of one pass: `rows` in full batches, then what is left over, if anything.

    The order is the stored one, or with a seed a random one. A plan of rows alone leaves the images as they are.
    """
    in_batches = size - size % batch_size
    rows = _order(size, order_seed)
    plans = {"rows": rows[:in_batches].reshape(-1, batch_size)}, {"rows": rows[in_batches:].reshape(1, -1)}
    return [plan for plan in plans if plan["rows"].size]


def _order(size, seed):
    """Returns the rows of a split, (size,) int32, in stored order or in the random order of a seed."""
    return (np.arange(size) if seed is None else np.random.default_rng(seed).permutation(size)).astype(np.int32)


def training_batches(split, image_size, *, first_step=0, steps_per_call=1, num_classes=None, **plan):
    """Returns an iterable of the batches of one epoch for `fit`, from step `first_step` on.

    With several replicas each gets an equal part of every batch. A worker decodes and augments its own parts alone.

    Args:
        split: a `Split`, or under TensorFlow also a `StreamSplit`.
        image_size: height and width, pixels.
        first_step: steps of the epoch to leave out, being done already.
        steps_per_call: steps in one compiled call; under JAX the length of the chunks.
        num_classes: number of categories; needed by augmentations that mix labels.
        **plan: what `epoch_plan` takes.
    """
    arrays = epoch_plan(len(split), image_size, **plan)
    rest = {name: array[first_step:] for name, array in arrays.items()}
    if keras.backend.backend() != "tensorflow":
        return _chunks(split, [rest], steps_per_call)
    if not isinstance(split, StreamSplit):
        return distribution.distributed_batches(lambda *worker: _gathered(split, [_dealt(rest, *worker)], num_classes))
    seed = int(np.random.SeedSequence((plan["seed"], plan["epoch"])).generate_state(1)[0])
    batch_size = plan["batch_size"]
    first = first_step * batch_size

    def make(worker, workers, replicas):
        share = batch_size // workers  # of a batch, for one worker

        def selected(place):
            return (place >= first) & (place % batch_size // share == worker)

        examples = split.examples(seed, selected, augment=True)
        batches = examples.batch(share // replicas, drop_remainder=True)

        def step(batch, step_plan):
            images, labels = batch
            images = tf.ensure_shape(images, (share // replicas, image_size, image_size, 3))
            images, labels = augmentations.augment_batch(augment(images, step_plan), labels, step_plan, num_classes)
            return scale(images), labels

        steps = _steps([_dealt(rest, worker, workers, replicas)])
        return tf.data.Dataset.zip(batches, steps).map(step, num_parallel_calls=2).prefetch(4)

    return distribution.distributed_batches(make)


def evaluation_batches(split, image_size, *, batch_size, steps_per_call=1, order_seed=None):
    """Returns an iterable of the whole split, unaugmented, the incomplete last batch included.

    With several replicas each gets as many examples as the others, some of which, with label -1, only fill up.

    Args:
        split: a `Split`.
        image_size: height and width, pixels.
        batch_size: examples a step.
        steps_per_call: steps in one compiled call; under JAX the length of the chunks.
        order_seed: gives a random order, the same for one seed; the stored order if None.
    """
    plans = whole_plan(len(split), batch_size=batch_size, order_seed=order_seed)
    if keras.backend.backend() != "tensorflow":
        return _chunks(split, plans, steps_per_call)
    count = distribution.replicas()
    share = -(-batch_size // count)
    steps = evaluation_steps(split, batch_size=batch_size)

    if count == 1:
        return _gathered(split, plans)
    rows = np.full(steps * share * count, -1, np.int32)
    rows[: len(split)] = _order(len(split), order_seed)
    plan = {"rows": rows.reshape(steps, share * count)}
    return distribution.distributed_batches(lambda *worker: _gathered(split, [_dealt(plan, *worker)]))


def evaluation_steps(split, *, batch_size, steps_per_call=1):
    """Returns how many items `evaluation_batches` gives; only TensorFlow with one replica finds out by itself."""
    if distribution.replicas() > 1:
        share = -(-batch_size // distribution.replicas())
        return -(-len(split) // (share * distribution.replicas()))
    batches, rest = divmod(len(split), batch_size)
    return -(-batches // steps_per_call) + (rest > 0)


def _gathered(split, plans, num_classes=None):
    """Returns the batches of a `Split` by one or two plans, as a `tf.data.Dataset`."""
    images, labels = split.tensors if split.in_memory else (split.images, split.labels)

    def read(plan):
        rows = tf.maximum(plan["rows"], 0)
        pixels = tf.numpy_function(images.__getitem__, [rows], tf.uint8, stateful=False)
        return _augmented(
            tf.ensure_shape(pixels, (None, *images.shape[1:])), tf.gather(labels, rows), plan, num_classes
        )

    def batch(plan):
        return gather(images, labels, plan, num_classes) if split.in_memory else read(plan)

    batches = _steps(plans).map(batch, num_parallel_calls=2).prefetch(4)
    options = tf.data.Options()  # rewriting the pipeline copies the whole split, and there is nothing to gain
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return batches.with_options(options)


def _dealt(plan, worker, workers, replicas):
    """Returns the part of one worker in a plan (steps, batch, ...): an item for each of its replicas in turn."""

    def of_worker(array):
        steps, batch, *rest = array.shape
        by_worker = array.reshape(steps, workers, replicas, batch // (workers * replicas), *rest)
        return by_worker[:, worker].reshape(steps * replicas, -1, *rest)

    return {name: of_worker(array) for name, array in plan.items()}


def _steps(plans):
    """Returns the steps of one or two plans, whose batches may differ in size, as one `tf.data.Dataset`."""
    first, *rest = [tf.data.Dataset.from_tensor_slices(plan) for plan in plans]
    return first.concatenate(rest[0]) if rest else first


def _chunks(split, plans, steps_per_call):
    """Yields (images, labels, plan) with a plan of `steps_per_call` steps.

    Of a split in memory it gives all images, on the device. Of one on disk it reads the images of the plan alone.
    """
    if isinstance(split, StreamSplit):
        raise UserError("crop_area decodes images on the way, which needs KERAS_BACKEND=tensorflow; leave it out")
    for plan in plans:
        for start in range(0, len(plan["rows"]), steps_per_call):
            chunk = {name: a[start : start + steps_per_call] for name, a in plan.items()}
            if split.in_memory:
                yield *split.tensors, chunk
            else:
                rows = chunk["rows"]
                places = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
                yield split.images[rows.ravel()], split.labels[rows.ravel()], chunk | {"rows": places}


def gather(images, labels, plan, num_classes=None):
    """Returns one batch of a split by one step of a plan: images (B, H, W, 3), floats in [-1, 1], and labels.

    Labels are (B,) int32, or (B, num_classes) shares where the plan mixes images.

    Args:
        images, labels: the whole split as tensors of the backend, (N, H, W, 3) uint8 and (N,) int32.
        plan: one step of `epoch_plan` or `whole_plan`; a row of -1 only fills up, and its label is -1.
        num_classes: number of categories; needed by a plan that mixes images.
    """
    rows_of = tf.gather if keras.backend.backend() == "tensorflow" else lambda x, rows: x[rows]
    rows = keras.ops.maximum(plan["rows"], 0)
    return _augmented(rows_of(images, rows), rows_of(labels, rows), plan, num_classes)


def _augmented(images, labels, plan, num_classes):
    """Returns what `gather` does, of images and labels that have been picked by the plan's rows."""
    images = augment(images, plan)
    labels = keras.ops.where(plan["rows"] < 0, -1, labels)
    images, labels = augmentations.augment_batch(images, labels, plan, num_classes)
    return scale(images), labels


def augment(images, plan):
    """Returns (B, H, W, 3) images cropped and flipped by one step of a plan; as they are if it holds rows alone."""
    if "flipped" not in plan:
        return images
    height, width = images.shape[1:3]
    rows = _pixels_from(height, plan["down"], False)
    columns = _pixels_from(width, plan["right"], plan["flipped"][:, None])
    return pick_pixels(images, rows, columns)


def _pixels_from(size, offsets, backwards):
    """Returns (B, size) int32: which pixel of an axis comes to each place, folded back at the borders.

    The border pixel itself is not repeated (reflect padding).

    Args:
        size: pixels along the axis.
        offsets: (B,) int32, pixels by which the crop is moved, less than `size` either way.
        backwards: (B, 1) bool, whether the axis is flipped; or False.
    """
    pixels = np.arange(size, dtype=np.int32)
    if backwards is not False:
        pixels = keras.ops.where(backwards, pixels[::-1], pixels)
    positions = keras.ops.abs(pixels + offsets[:, None])
    return size - 1 - keras.ops.abs(size - 1 - positions)


def pick_pixels(images, source_rows, source_columns):
    """Returns images whose pixel (i, j) is the pixel (source_rows[i], source_columns[j]) of the same input image.

    Args:
        images: (B, H, W, 3).
        source_rows, source_columns: (B, H) and (B, W) indices.
    """
    if keras.backend.backend() == "tensorflow":
        images = tf.gather(images, source_rows, batch_dims=1)
        return tf.gather(images, source_columns, axis=2, batch_dims=1)
    batch = np.arange(images.shape[0])[:, None, None]
    return images[batch, source_rows[:, :, None], source_columns[:, None, :]]


def in_batches(function, *arrays, batch_size=250):
    """Returns what a function gives of arrays with so many rows at a time, as NumPy arrays in the place of its tensors.

    Args:
        function: takes as many arrays (B, ...), and returns a tensor (B, ...) or a structure of them.
        arrays: (N, ...) each; N at least 1.
        batch_size: B; only memory depends on it.
    """
    parts = []
    for start in range(0, len(arrays[0]), batch_size):
        outputs = function(*(array[start : start + batch_size] for array in arrays))
        parts.append(keras.tree.map_structure(keras.ops.convert_to_numpy, outputs))
    return keras.tree.map_structure(lambda *of_batches: np.concatenate(of_batches), *parts)


def scale(images):
    """Returns uint8 images as floats in [-1, 1], the range every network here takes."""
    return keras.ops.cast(images, keras.config.floatx()) / 127.5 - 1.0
