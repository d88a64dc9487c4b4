"""Several devices, or several machines, at once by tf.distribute: which strategy there is, and what a replica shares.

A batch is cut into equal parts, one a replica. Batch norm, gradients, metrics and random draws are those of the whole
batch, so that a step does the same on any number of replicas, but for rounding.

A replica is a device; a worker is a process, which has one device or several. With `multi_worker` every worker runs the
same command, and the first of them, the chief, writes the run folder.
"""

import concurrent.futures
import contextlib
import functools

import keras

from cdc_keras.devices import cluster
from cdc_keras.errors import UserError


@contextlib.contextmanager
def scope(name):
    """The context in which a model is built and trained.

    Args:
        name: "none"; "mirrored": every accelerator of this machine, or every logical CPU where there is none;
            "multi_worker": those of every machine in TF_CONFIG.

    Raises:
        UserError: there is no such strategy here, or TF_CONFIG is not what it should be; and, where a worker was lost
            in mid-training, what to do.
    """
    check(name)
    if name == "none":
        yield
        return
    import tensorflow as tf

    try:
        with {"mirrored": _mirrored, "multi_worker": _multi_worker}[name]().scope():
            yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if name != "multi_worker":
            raise
        raise UserError(
            f"another worker was lost, so this one stops: {_reason(error)}. Start the same command on every worker "
            "again; they go on from the last checkpoint"
        ) from error


def check(name):
    """Raises UserError if there can be no strategy of this name here; allocates nothing."""
    if name != "none" and keras.backend.backend() != "tensorflow":
        raise UserError(f"strategy {name} is TensorFlow's; leave it out, or set KERAS_BACKEND=tensorflow")
    if name == "multi_worker" and cluster.from_environment() is None:
        raise UserError(
            "strategy multi_worker needs TF_CONFIG, which says who the workers are, in the environment of each: "
            + cluster.example()
        )
    if name != "multi_worker" and (workers := cluster.from_environment()) is not None and len(workers.addresses) > 1:
        raise UserError(
            f"TF_CONFIG names {len(workers.addresses)} workers but strategy is {name}, so each would train for itself; "
            "give --strategy=multi_worker, or unset TF_CONFIG"
        )


@functools.cache  # a second one in a process would number its collectives as the first did
def _mirrored():
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@functools.cache
def _multi_worker():
    import tensorflow as tf

    workers = cluster.from_environment()
    cluster.meet(workers)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise cluster.cannot_start(workers, _reason(error)) from error


def _reason(error):
    """Returns what an error of TensorFlow says, without the trace of the graph."""
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines()]
    texts = [x for x in lines if x and not x.startswith(("Graph execution", "Detected at", "File ", "[["))]
    return (texts or [type(error).__name__])[0].rstrip(".:")


def replicas():
    """Returns how many replicas there are: in a strategy's scope, or in a step that it runs."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def workers():
    """Returns how many workers there are: in a strategy's scope, or in a step that it runs."""
    if replicas() == 1:
        return 1
    import tensorflow as tf

    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return len(cluster.from_environment().addresses) if several else 1


def is_chief():
    """Returns whether this process, in a strategy's scope, is the one that writes the run folder."""
    return workers() == 1 or cluster.from_environment().index == 0


@contextlib.contextmanager
def chief_first():
    """The others enter the block once the chief has left it, so that they find what it wrote."""
    if not is_chief():
        on_any_worker(False)
    yield
    if is_chief():
        on_any_worker(False)


def in_one_worker(function):
    """Calls `function`, which one worker may do without the others, and returns what it returned.

    Under several workers every new variable is a message to all, and Keras makes one even when it saves; in a thread of
    its own there is no strategy.
    """
    if replicas() == 1:
        return function()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def on_any_worker(flag):
    """Returns whether `flag` holds on any worker; every worker has to ask, and waits here until all have."""
    return flag if workers() == 1 else _sum_over_workers()(int(flag)) > 0


def agreed(number):
    """Returns whether all workers have the same whole number; every worker has to ask, and waits until all have."""
    return workers() == 1 or not on_any_worker(_sum_over_workers()(number) != number * workers())


@functools.cache
def _sum_over_workers():
    """Returns the function that sums a whole number over the workers."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    local = strategy.num_replicas_in_sync // workers()

    @tf.function
    def total_of(number):
        numbers = strategy.run(lambda x: x, (number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None) // local

    return lambda number: int(total_of(tf.constant(number, tf.int64)))


def distributed_batches(make):
    """Returns batches as Keras' trainer takes them.

    Args:
        make: (worker, workers, replicas) -> `tf.data.Dataset` for one worker of several, each of which has so many
            replicas. Its items go to these replicas in turn, each item the part of one replica in one batch.
    """
    if replicas() == 1:
        return make(0, 1, 1)
    import tensorflow as tf

    def of_worker(context):
        count = context.num_input_pipelines
        return make(context.input_pipeline_id, count, context.num_replicas_in_sync // count)

    return tf.distribute.get_strategy().distribute_datasets_from_function(of_worker)


def sum_over_replicas(values):
    """Returns the sum over the replicas of a tensor, or of each tensor of a list."""
    if replicas() == 1:
        return values
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def norm_over_replicas(gradient):
    """Returns the norm of the whole batch's gradient, of which each replica has a part, that of its own mean."""
    return keras.ops.sqrt(sum_over_replicas(keras.ops.sum(gradient**2))) / replicas()


def share_of_batch(values):
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
