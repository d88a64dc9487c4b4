"""What a person sees of a run while it goes: progress, time left, TensorBoard curves; and how a run is stopped."""

import importlib.util
import math
import os
import signal
import sys
import time
import types

import keras

from cdc_keras.devices import distribution
from cdc_keras.errors import UserError

AGREED_EVERY = 10  # steps


class Progress(keras.callbacks.Callback):
    """Prints epoch, step, readings, images/s and the time left of the whole run; stops on NaN.

    On a terminal one line is rewritten about every second, elsewhere a line is printed about twice a minute.

    Args:
        epochs, steps_per_epoch, batch_size: length of the run.
        steps_per_chunk: steps between two calls of `on_train_batch_end` that it does not count itself (JAX' chunks).
        first_step: step of the whole run at which this process starts.
        shown: False prints nothing, for all workers but one.
    """

    def __init__(self, *, epochs, steps_per_epoch, batch_size, steps_per_chunk, first_step, shown=True):
        super().__init__()
        self.total, self.steps_per_epoch, self.epochs = epochs * steps_per_epoch, steps_per_epoch, epochs
        self.batch_size, self.steps_per_chunk, self.shown = batch_size, steps_per_chunk, shown
        self.terminal = sys.stderr.isatty()
        self.interval = 1.0 if self.terminal else 30.0
        self.step = self.epoch_start = first_step
        self.timed = self.printed = None

    def start_epoch(self, first_step):
        """Says at which step of the whole run the coming `fit` begins."""
        self.epoch_start = self.step = first_step

    def on_train_batch_end(self, batch, logs=None):
        self.step = min(self.epoch_start + (batch + 1) * self.steps_per_chunk, self.total)
        now = time.monotonic()
        if self.timed is None:  # the first call compiles; time counts from its end
            self.timed, self.printed = (now, self.step), now
        elif now - self.printed >= self.interval:
            self.printed = now
            check_finite(logs)
            if self.shown:
                self._print(logs, now)

    def _print(self, logs, now):
        since, from_step = self.timed
        per_step = (now - since) / max(self.step - from_step, 1)
        epoch, within = divmod(self.step - 1, self.steps_per_epoch)
        readings = "  ".join(f"{name} {float(value):.4g}" for name, value in logs.items())
        left = duration((self.total - self.step) * per_step)
        line = (
            f"epoch {epoch + 1}/{self.epochs}  step {within + 1}/{self.steps_per_epoch}  "
            f"{self.batch_size / per_step:.0f} images/s  {left} left  {readings}"
        )
        print(
            f"\r\x1b[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )

    def end_epoch(self, text):
        """Prints the line that stays of an epoch."""
        if self.shown:
            print(("\r\x1b[K" if self.terminal else "") + text, file=sys.stderr, flush=True)


class StopOnSignal(keras.callbacks.Callback):
    """Ends training after the step under way on Ctrl-C or SIGTERM; a second Ctrl-C ends it at once.

    Use as a context manager around training. Workers agree every `AGREED_EVERY` steps, since none can take one alone.
    """

    def __init__(self):
        super().__init__()
        self.stopped = False

    def __enter__(self):
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped = True
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nstopping after this step and saving; press Ctrl-C again to stop at once\n")

    def on_train_batch_end(self, batch, logs=None):
        if distribution.workers() == 1 or batch % AGREED_EVERY == 0:
            self.model.stop_training = self.agreed()

    def agreed(self):
        """Returns whether a signal came, to whichever worker; every worker has to ask."""
        self.stopped = distribution.anywhere(self.stopped)
        return self.stopped


class Checkpoints(keras.callbacks.Callback):
    """Saves in mid-epoch, so that a run that is killed loses little.

    Args:
        every: "1000", steps, or "600s", seconds.
        steps_per_epoch: the last step of an epoch is left to who ends the epoch.
        steps_done: () -> steps of the whole run.
        save: (step) saves the model.
    """

    def __init__(self, every, *, steps_per_epoch, steps_done, save):
        super().__init__()
        self.every, self.unit = int(every.removesuffix("s")), "seconds" if every.endswith("s") else "steps"
        self.steps_per_epoch, self.steps_done, self.save = steps_per_epoch, steps_done, save

    def on_train_begin(self, logs=None):
        self.last_step, self.last_time = self.steps_done(), time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if self.unit == "seconds" and time.monotonic() - self.last_time < self.every:
            return
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        step = self.steps_done()
        due = self.unit == "seconds" or step // self.every > self.last_step // self.every
        if due and step % self.steps_per_epoch:
            check_finite(logs)
            self.save(step)
            self.last_step, self.last_time = step, time.monotonic()


class TensorBoardLog:
    """Scalars for TensorBoard, written by its own package, which needs no TensorFlow.

    Args:
        folder: where the event files go; None for none.
    """

    def __init__(self, folder):
        self.writer = None
        if folder is None:
            return
        if importlib.util.find_spec("tensorboard") is None:
            print("no TensorBoard curves: the package tensorboard is not installed", file=sys.stderr)
            return
        if keras.backend.backend() != "tensorflow":
            # The name TensorBoard looks for before it imports TensorFlow, where that is installed, for its file system.
            sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(folder))

    def write(self, step, row):
        """Adds the values of `row` at `step`."""
        if self.writer is None:
            return
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self.writer.add_event(
            event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values))
        )
        self.writer.flush()


def check_finite(readings):
    """Raises UserError if a reading is NaN or infinite."""
    bad = [name for name, value in readings.items() if not math.isfinite(float(value))]
    if bad:
        raise UserError(
            f"{', '.join(bad)} became NaN or infinite, so training stopped; the last checkpoint is from before. "
            "Lower learning_rate, in a new run_dir"
        )


def duration(seconds):
    """Returns seconds as "12 s", "3 min" or "5.2 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
