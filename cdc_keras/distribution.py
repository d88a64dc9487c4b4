"""Several devices at once by tf.distribute: which strategy there is, and what a replica shares with the others.

A batch is cut into equal parts, one a replica. Batch norm, gradients, readings and random draws are those of the whole
batch, so that a step does the same on any number of replicas, but for rounding.
"""

import contextlib
import functools

import keras

from cdc_keras.errors import UserError

STRATEGIES = ("none", "mirrored")


def scope(name):
    """Returns the context in which a model is built and trained.

    Args:
        name: "none", or "mirrored": every accelerator of this machine, or every logical CPU where there is none.

    Raises:
        UserError: the backend has no such strategy.
    """
    if name == "none":
        return contextlib.nullcontext()
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"strategy {name} is TensorFlow's; leave it out, or set KERAS_BACKEND=tensorflow")
    return _mirrored().scope()


@functools.cache  # a second one in a process would number its collectives as the first did
def _mirrored():
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def replicas():
    """Returns how many replicas there are: in a strategy's scope, or in a step that it runs."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def total(values):
    """Returns the sum over the replicas of a tensor, or of each tensor of a list."""
    if replicas() == 1:
        return values
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def part(values):
    """Returns the part of this replica of what was made for the whole batch, (batch, ...).

    Random draws are made so: each replica draws for all, from one seed, and takes its own.
    """
    count = replicas()
    if count == 1:
        return values
    import tensorflow as tf

    size = tf.shape(values)[0] // count
    start = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, size.dtype) * size
    return values[start : start + size]
