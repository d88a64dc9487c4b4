"""From splits to batches: a plan of the epoch drawn by NumPy, carried out by the backend that trains.

A plan says for every step which examples it takes and how each is cropped and flipped. It is a pure function of (seed,
epoch), so both backends see the same batches and a run can go on in mid-epoch. Crop, reflection and flip are all one
thing: for each image, which source row and which source column every output pixel comes from.
"""

import keras
import numpy as np

from cdc_keras.data.dataset import StreamSplit

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def epoch_plan(size, image_size, *, batch_size, seed, epoch, crop_padding=0, flip=False):
    """Returns the plan of a training epoch: a dict of arrays with leading axes (steps, batch_size).

    `rows` are example indices, every example at most once, the incomplete last batch left out; `source_rows` and
    `source_columns` (steps, batch_size, image_size) say where each output pixel comes from.

    Args:
        size: number of examples to draw from.
        image_size: height and width, pixels.
        batch_size: examples a step; at most `size`.
        seed, epoch: every pair gives another order and other augmentation, the same pair the same.
        crop_padding: reflected pixels on each side before the random crop; the paper's recipe has 4 at 32 px.
        flip: flip half of the images horizontally.
    """
    if size < batch_size:
        raise ValueError(f"a batch of {batch_size} does not fit into {size} training examples; lower batch_size")
    if crop_padding >= image_size:
        raise ValueError(
            f"crop_padding is {crop_padding} pixels, but reflection reaches less than {image_size}; lower it"
        )
    rng = np.random.default_rng((seed, epoch))
    steps = size // batch_size
    shape = (steps, batch_size)
    rows = rng.permutation(size)[: steps * batch_size].reshape(shape)
    down = rng.integers(-crop_padding, crop_padding + 1, shape)
    right = rng.integers(-crop_padding, crop_padding + 1, shape)
    flipped = rng.random(shape) < (0.5 if flip else 0.0)

    pixels = np.arange(image_size)
    columns = np.where(flipped[..., None], pixels[::-1], pixels)
    return {
        "rows": rows.astype(np.int32),
        "source_rows": _reflect(pixels + down[..., None], image_size),
        "source_columns": _reflect(columns + right[..., None], image_size),
    }


def _reflect(positions, size):
    """Returns positions folded back into [0, size), the border pixel itself not repeated (reflect padding)."""
    return (size - 1 - np.abs(size - 1 - np.abs(positions))).astype(np.int32)


def whole_plan(size, image_size, *, batch_size):
    """Returns the plans of one pass in stored order, unaugmented: full batches, then what is left over, if anything."""
    pixels = np.arange(image_size, dtype=np.int32)
    full = size - size % batch_size
    plans = []
    for start, stop, width in ((0, full, batch_size), (full, size, size - full)):
        if stop > start:
            rows = np.arange(start, stop, dtype=np.int32).reshape(-1, width)
            positions = np.broadcast_to(pixels, (*rows.shape, image_size))
            plans.append({"rows": rows, "source_rows": positions, "source_columns": positions})
    return plans


def training_batches(split, image_size, *, first_step=0, steps_per_call=1, **plan):
    """Returns an iterable of the batches of one epoch for `fit`, from step `first_step` on.

    Args:
        split: a `Split`, or under TensorFlow also a `StreamSplit`.
        image_size: height and width, pixels.
        first_step: steps of the epoch to leave out, being done already.
        steps_per_call: steps in one compiled call; under JAX the length of the chunks.
        **plan: what `epoch_plan` takes.
    """
    arrays = epoch_plan(len(split), image_size, **plan)
    if isinstance(split, StreamSplit):
        return _stream(split, [arrays], first_step, shuffle_seed=(plan["seed"], plan["epoch"]))
    return _batches(split, [{name: a[first_step:] for name, a in arrays.items()}], steps_per_call)


def evaluation_batches(split, image_size, *, batch_size, steps_per_call=1):
    """Returns an iterable of the whole split in stored order, unaugmented, the incomplete last batch included."""
    plans = whole_plan(len(split), image_size, batch_size=batch_size)
    if isinstance(split, StreamSplit):
        return _stream(split, plans, 0, shuffle_seed=None)
    return _batches(split, plans, steps_per_call)


def stored_batches(split, batch_size):
    """Yields the split as it is stored, in NumPy batches of (images (B, H, W, 3) uint8, labels (B,))."""
    if isinstance(split, StreamSplit):
        yield from split.examples(None).batch(batch_size).as_numpy_iterator()
        return
    for start in range(0, len(split), batch_size):
        yield split.images[start : start + batch_size], split.labels[start : start + batch_size]


def evaluation_steps(split, *, batch_size, steps_per_call=1):
    """Returns how many items `evaluation_batches` gives under JAX, where an iterable can not say its length itself."""
    full, rest = divmod(len(split), batch_size)
    return -(-full // steps_per_call) + (rest > 0)


def _batches(split, plans, steps_per_call):
    if keras.backend.backend() == "tensorflow":
        images, labels = split.tensors
        return _steps(plans).map(lambda plan: gather(images, labels, plan), num_parallel_calls=2).prefetch(4)
    return _chunks(*split.tensors, plans, steps_per_call)


def _steps(plans):
    """Returns the steps of one or two plans, whose batches may differ in size, as one `tf.data.Dataset`."""
    first, *rest = [tf.data.Dataset.from_tensor_slices(plan) for plan in plans]
    return first.concatenate(rest[0]) if rest else first


def _chunks(images, labels, plans, steps_per_call):
    """Yields (images, labels, plan) with the whole split on the device and a plan of `steps_per_call` steps."""
    for plan in plans:
        for start in range(0, len(plan["rows"]), steps_per_call):
            yield images, labels, {name: a[start : start + steps_per_call] for name, a in plan.items()}


def _stream(split, plans, first_step, shuffle_seed):
    """Returns batches of a split that is decoded on the way; the order is the stream's, the augmentation the plan's."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("this data set does not fit into memory, and streams need the TensorFlow backend")
    seed = None if shuffle_seed is None else int(np.random.SeedSequence(shuffle_seed).generate_state(1)[0])
    batch_size = plans[0]["rows"].shape[1]
    batches = split.examples(seed).batch(batch_size, drop_remainder=shuffle_seed is not None)

    def augment(batch, plan):
        images, labels = batch
        return scale(pick_pixels(images, plan["source_rows"], plan["source_columns"])), labels

    return tf.data.Dataset.zip(batches, _steps(plans)).skip(first_step).map(augment, num_parallel_calls=2).prefetch(4)


def gather(images, labels, plan):
    """Returns one batch, (B, H, W, 3) float in [-1, 1] and (B,) int32, of a split by one step of a plan.

    Args:
        images, labels: the whole split as tensors of the backend, (N, H, W, 3) uint8 and (N,) int32.
        plan: one step of `epoch_plan` or `whole_plan`.
    """
    take = tf.gather if keras.backend.backend() == "tensorflow" else lambda x, rows: x[rows]
    batch = pick_pixels(take(images, plan["rows"]), plan["source_rows"], plan["source_columns"])
    return scale(batch), take(labels, plan["rows"])


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


def scale(images):
    """Returns uint8 images as floats in [-1, 1], the range every network here takes."""
    return keras.ops.cast(images, "float32") / 127.5 - 1.0
