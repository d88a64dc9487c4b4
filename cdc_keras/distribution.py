"""Several devices, or several machines, at once by tf.distribute: which strategy there is, and what a replica shares.

A batch is cut into equal parts, one a replica. Batch norm, gradients, readings and random draws are those of the whole
batch, so that a step does the same on any number of replicas, but for rounding.

A replica is a device; a worker is a process, which has one device or several. With `multi_worker` every worker runs the
same command, and the first of them, the chief, writes the run folder.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import re
import socket
import time

import keras

from cdc_keras.errors import UserError

STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")
WAIT = 300  # seconds for which a worker waits until all others have come
ADDRESS = re.compile(r"[^\s:/]+:(\d{1,5})")


@contextlib.contextmanager
def scope(name):
    """The context in which a model is built and trained.

    Args:
        name: "none"; "mirrored": every accelerator of this machine, or every logical CPU where there is none;
            "multi_worker": those of every machine in TF_CONFIG; "tpu": the cores of TPU_NAME, or of this machine.

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
        with {"mirrored": _mirrored, "multi_worker": _multi_worker, "tpu": _tpu}[name]().scope():
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
    if name == "multi_worker" and cluster() is None:
        raise UserError(
            "strategy multi_worker needs TF_CONFIG, which says who the workers are, in the environment of each: "
            + _example()
        )
    if name != "multi_worker" and (workers := cluster()) is not None and len(workers.addresses) > 1:
        raise UserError(
            f"TF_CONFIG names {len(workers.addresses)} workers but strategy is {name}, so each would train for itself; "
            "give --strategy=multi_worker, or unset TF_CONFIG"
        )


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of TF_CONFIG.

    Attributes:
        addresses: "host:port" of each, the chief first.
        index: which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int


def cluster():
    """Returns the `Cluster` of TF_CONFIG; None where that is not set.

    Raises:
        UserError: naming what is wrong in it.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _invalid(f"it is no JSON ({error})") from None
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not jobs:
        raise _invalid('it has no "cluster"')
    if others := sorted(set(jobs) - {"chief", "worker"}):
        raise _invalid(f"only a chief and workers take part, not {', '.join(others)}")
    addresses = {job: jobs[job] for job in ("chief", "worker") if job in jobs}
    for job, listed in addresses.items():
        if not isinstance(listed, list) or not listed or not all(map(_is_address, listed)):
            raise _invalid(f"{job} is a list of addresses host:port, not {listed!r}")
    flat = tuple(address for listed in addresses.values() for address in listed)
    if len(set(flat)) < len(flat):
        raise _invalid(f"two workers have one address: {', '.join(flat)}")
    if len(addresses.get("chief", ["one"])) > 1:
        raise _invalid("there is one chief at most")
    task = config.get("task")
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind not in addresses or type(index) is not int or not 0 <= index < len(addresses[kind]):
        raise _invalid(f'"task" says which of these this process is, by type and index, but it is {task!r}')
    return Cluster(flat, index + (len(addresses["chief"]) if kind == "worker" and "chief" in addresses else 0))


def _is_address(value):
    match = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return match is not None and 0 < int(match[1]) < 65536


def _invalid(what):
    return UserError(f"TF_CONFIG is invalid: {what}. {_example()}")


def _example():
    example = {"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}
    return f"For two workers, on the first: TF_CONFIG='{json.dumps(example)}'"


@functools.cache  # a second one in a process would number its collectives as the first did
def _mirrored():
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@functools.cache
def _multi_worker():
    import tensorflow as tf

    workers = cluster()
    _meet(workers)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise _can_not_start(workers, _reason(error)) from error


def _meet(workers):
    """Returns when all workers are there. TensorFlow would wait for an hour, and could not be interrupted.

    Raises:
        UserError: naming who has not come in `WAIT` seconds.
    """
    deadline = time.monotonic() + WAIT
    if workers.index == 0:
        _wait_for_others(workers, deadline)
    else:
        _wait_for_chief(workers, deadline)


def _wait_for_others(workers, deadline):
    missing = dict(enumerate(workers.addresses[1:], start=1))
    with contextlib.ExitStack() as opened:
        try:
            server = opened.enter_context(socket.create_server(("", _host_and_port(workers.addresses[0])[1])))
        except OSError as error:
            raise _can_not_start(workers, error.strerror) from error
        here = []
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = opened.enter_context(server.accept()[0])
                connection.settimeout(5)
                index = connection.recv(4)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue  # it said nothing: no worker
                names = ", ".join(f"{index} at {address}" for index, address in missing.items())
                raise UserError(f"after {WAIT} s these workers have not come: {names}; start them") from None
            missing.pop(int.from_bytes(index), None)
            here.append(connection)
        for connection in here:
            with contextlib.suppress(OSError):
                connection.sendall(b"all")
                connection.recv(1)  # they close first, which leaves the port free


def _wait_for_chief(workers, deadline):
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            with socket.create_connection(_host_and_port(workers.addresses[0]), timeout=5) as chief:
                chief.sendall(workers.index.to_bytes(4))
                chief.settimeout(max(deadline - time.monotonic(), 0.01))
                if chief.recv(3) == b"all":
                    return
        time.sleep(0.2)
    raise UserError(
        f"after {WAIT} s the chief at {workers.addresses[0]} does not answer, or waits for another worker; start all"
    )


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def _can_not_start(workers, reason):
    return UserError(f"worker {workers.index}, {workers.addresses[workers.index]}, can not start: {reason}")


@functools.cache
def _tpu():
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"strategy tpu found no TPU ({_reason(error)}); set TPU_NAME, or leave the strategy out"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _reason(error):
    """Returns what an error of TensorFlow says, without the trace of the graph."""
    lines = [line.strip() for line in str(getattr(error, "message", error)).splitlines()]
    told = [x for x in lines if x and not x.startswith(("Graph execution", "Detected at", "File ", "[["))]
    return (told or [type(error).__name__])[0].rstrip(".:")


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
    return len(cluster().addresses) if several else 1


def is_chief():
    """Returns whether this process, in a strategy's scope, is the one that writes the run folder."""
    return workers() == 1 or cluster().index == 0


@contextlib.contextmanager
def chief_first():
    """The others enter the block once the chief has left it, so that they find what it wrote."""
    if not is_chief():
        anywhere(False)
    yield
    if is_chief():
        anywhere(False)


def alone(function):
    """Calls `function`, which one worker may do without the others, and returns what it returned.

    Under several workers every new variable is a message to all, and Keras makes one even when it saves; in a thread of
    its own there is no strategy.
    """
    if workers() == 1:
        return function()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def anywhere(flag):
    """Returns whether `flag` holds on any worker; every worker has to ask, and waits here until all have."""
    return flag if workers() == 1 else _sum_over_workers()(int(flag)) > 0


def agreed(number):
    """Returns whether all workers have the same whole number; every worker has to ask, and waits until all have."""
    return workers() == 1 or not anywhere(_sum_over_workers()(number) != number * workers())


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


def deal(make):
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
