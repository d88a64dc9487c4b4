"""Programs that take turns: each in a process of its own, on the same cores, one round after the other."""

import contextlib
import multiprocessing
import resource
import statistics


@contextlib.contextmanager
def processes(title, sides):
    """The context in which every side works in a process of its own; gives {side: ask}.

    `ask(**asked)` has a side do a round, and returns what it returns; `ask()` ends its process and returns its peak
    memory, MiB.

    Args:
        title: of the row, named where a process ends early.
        sides: {side: (what makes what is asked, arguments, keyword arguments)}.
    """
    context = multiprocessing.get_context("spawn")
    asks, started = {}, []

    def asker(end):
        def ask(**asked):
            end.send(asked)
            return end.recv()

        return ask

    try:
        for side, made in sides.items():
            end, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, *made))
            process.start()
            started.append(process)
            other.close()
            end.recv()
            asks[side] = asker(end)
        yield asks
    except EOFError:
        raise SystemExit(f"error: a process of the row {title!r} ended early; its message is above") from None
    finally:
        for process in started:
            process.terminate()
            process.join()


def _serve(connection, make, arguments, keywords):
    asked_of = make(*arguments, **keywords)
    connection.send("ready")
    while asked := connection.recv():
        connection.send(asked_of(**asked))
    connection.send(peak_mib())


def elsewhere(function, *arguments):
    """Returns what a function returns in another process: this one never loads TensorFlow."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_mib():
    """Returns the most memory that this process has taken so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median_ratio(ours, theirs):
    """Returns the median over the rounds of ours over theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def environment():
    """Returns what a measurement is published with."""
    from cdc_keras.runs import environment

    return environment.environment()
