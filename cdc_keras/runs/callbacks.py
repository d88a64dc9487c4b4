"""Everything that happens while a run trains, as Keras callbacks: what is measured, kept, shown, and when it stops."""

import dataclasses
import math
import time

import keras

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Dataset
from cdc_keras.devices import distribution
from cdc_keras.errors import UserError
from cdc_keras.progress import Bar, say
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.leak import leak_of
from cdc_keras.runs.pictures import draw_training
from cdc_keras.runs.scoring import score
from cdc_keras.runs.stopping import StopOnSignal
from cdc_keras.trainers.step import StepModel
from cdc_keras.weights import save_weights

CHECKED_EVERY = 30  # seconds
DRAWN_EVERY = 60  # seconds


@dataclasses.dataclass(frozen=True)
class Course:
    """A run under way, which its callbacks share.

    Attributes:
        model: the `Disentangler` or `Classifier` in training.
        run: the `RunFolder`.
        dataset: the `Dataset`.
        config: the resolved `RunConfig`.
        steps_per_epoch: training steps.
        rows: the metrics of every finished epoch, {name: number}, to which `Metrics` adds.
    """

    model: StepModel
    run: RunFolder
    dataset: Dataset
    config: RunConfig
    steps_per_epoch: int
    rows: list[dict[str, float]]

    @property
    def total(self):
        """The number of steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def steps_per_batch_end(self):
        """How many steps there are between two calls of `on_train_batch_end` that Keras counts as one."""
        return self.config.steps_per_call if keras.backend.backend() == "jax" else 1


class RunCallback(keras.callbacks.Callback):
    """A callback of a `Course`, whose `on_epoch_over` is called for whole epochs alone."""

    def __init__(self, course):
        super().__init__()
        self.course = course

    def on_epoch_end(self, epoch, logs=None):
        if self.model.steps_done == (epoch + 1) * self.course.steps_per_epoch:
            self.on_epoch_over(epoch, logs)

    def on_epoch_over(self, epoch, logs):
        """Called at the end of an epoch, but not of one that was stopped within."""


def callbacks_of(course, pictures):
    """Returns (callbacks in the order in which Keras has to call them, the `Progress`, the `StopOnSignal` among them).

    The last two are context managers, which training has to be within.

    Args:
        course: a `Course`.
        pictures: whether to draw how training goes.
    """
    progress, stop = Progress(course), StopOnSignal()
    callbacks = [StopOnNaN(), Metrics(course), BestWeights(course), progress, Checkpoints(course)]
    if course.run.writes:
        callbacks.insert(-1, TensorBoard(course))
        callbacks += [Pictures(course)] if pictures else []
    return [*callbacks, stop], progress, stop


class StopOnNaN(keras.callbacks.Callback):
    """Stops with a `UserError` if a metric is NaN or infinite; looks every `CHECKED_EVERY` seconds."""

    def on_train_begin(self, logs=None):
        self.checked = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.checked >= CHECKED_EVERY:
            check_finite(logs)
            self.checked = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        check_finite(logs)


class Metrics(RunCallback):
    """Scores the held-out images after every epoch and adds a row to metrics.csv."""

    def on_train_begin(self, logs=None):
        self.first_step, self.started = self.model.steps_done, time.monotonic()

    def on_epoch_over(self, epoch, logs):
        seconds = time.monotonic() - self.started
        images = (self.model.steps_done - self.first_step) * self.course.config.batch_size
        row = {"epoch": epoch + 1, **logs, **self.model.skipped_steps(), **self._held_out()}
        row |= {"seconds": seconds, "images_per_second": images / seconds}
        self.course.rows.append({name: float(value) for name, value in row.items()})
        self.course.run.write_rows(self.course.rows)

    def _held_out(self):
        """Returns the metrics on validation, "val_<name>", and if the config says so on test, "test_<name>".

        Of an extractor, `val_leak` is among them (`runs.leak`).
        """
        dataset, config = self.course.dataset, self.course.config
        splits = {"val": dataset.validation, **({"test": dataset.test} if config.test_every_epoch else {})}
        measured = {
            f"{prefix}_{name}": value
            for prefix, split in splits.items()
            if len(split)
            for name, value in score(self.model, split, config).metrics.items()
        }
        if not config.classifies and len(dataset.validation) > 3:
            num_classes = len(dataset.class_names)
            measured["val_leak"] = distribution.in_one_worker(
                lambda: leak_of(self.model.encoder, dataset.validation, num_classes)
            )
        return measured


class BestWeights(RunCallback):
    """Keeps a classifier's network from its best epoch on validation; of equal ones the last."""

    def on_epoch_over(self, epoch, logs):
        run, top1 = self.course.run, [row["val_top1"] for row in self.course.rows if "val_top1" in row]
        if run.writes and top1 and top1[-1] >= max(top1):
            save_weights(self.model.network, run.best_weights)


class Progress(RunCallback):
    """Shows epoch, metrics, images per second and the time left of the whole run; a line stays of every epoch.

    Use as a context manager around training: whatever ends it, an error too, the bar is taken away before.
    """

    bar = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.epoch_start = epoch, self.model.steps_done

    def on_train_batch_end(self, batch, logs=None):
        course = self.course
        step = self.epoch_start + (batch + 1) * course.steps_per_batch_end
        images = min(step, course.total) * course.config.batch_size
        if self.bar is None:  # the first call compiles; speed counts from its end
            total = course.total * course.config.batch_size
            self.bar = Bar(total, "images", initial=images, shown=course.run.writes)
        self.bar.set_description_str(f"epoch {self.epoch + 1}/{course.config.epochs}", refresh=False)
        self.bar.metrics = logs
        self.bar.update(images - self.bar.n)

    def on_epoch_over(self, epoch, logs):
        if self.course.run.writes:
            row = self.course.rows[-1]
            metrics = "  ".join(
                f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "seconds")
            )
            say(f"epoch {epoch + 1}/{self.course.config.epochs}  {metrics}")


class TensorBoard(RunCallback):
    """Writes the rows of metrics.csv as curves for TensorBoard, with TensorFlow."""

    def __init__(self, course):
        super().__init__(course)
        self.writer = None
        if keras.backend.backend() != "tensorflow":
            say("note: no TensorBoard curves, which TensorFlow writes; metrics.csv has the same numbers")
            return
        import tensorflow as tf

        self.summary = tf.summary
        self.writer = tf.summary.create_file_writer(str(course.run.path / "tensorboard"))

    def on_epoch_over(self, epoch, logs):
        if self.writer is None:
            return
        with self.writer.as_default(step=self.model.steps_done):
            for name, value in self.course.rows[-1].items():
                self.summary.scalar(name, value)
        self.writer.flush()


class Checkpoints(RunCallback):
    """Saves at the end of every epoch or of a part of one, and within as `checkpoint_every` says."""

    def __init__(self, course):
        super().__init__(course)
        every = course.config.checkpoint_every
        self.every, self.in_seconds = int(every.removesuffix("s")), every.endswith("s")
        self.last_time = time.monotonic()

    def on_train_begin(self, logs=None):
        self.last_step = self.model.steps_done

    def on_train_batch_end(self, batch, logs=None):
        if self.in_seconds and time.monotonic() - self.last_time < self.every:
            return
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        step = self.model.steps_done
        due = self.in_seconds or step // self.every > self.last_step // self.every
        if due and step % self.course.steps_per_epoch:  # the epoch's last step is left to `on_epoch_end`
            check_finite(logs)
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        self._save()

    def _save(self):
        run, step, now = self.course.run, self.model.steps_done, time.monotonic()
        run.save_checkpoint(self.model, step)
        run.note(train_seconds=run.notes().get("train_seconds", 0.0) + now - self.last_time)
        self.last_step, self.last_time = step, now


class Pictures(RunCallback):
    """Draws how training goes after epochs 1, 2, 4, 8 and so on, at most every `DRAWN_EVERY` seconds.

    Of a finished run, `training` draws the last ones.
    """

    def __init__(self, course):
        super().__init__(course)
        self.last_time = time.monotonic()

    def on_epoch_over(self, epoch, logs):
        course, now = self.course, time.monotonic()
        due = (epoch + 1) & epoch == 0 and now - self.last_time >= DRAWN_EVERY
        if due and self.model.steps_done < course.total:
            self.last_time = now
            distribution.in_one_worker(lambda: draw_training(self.model, course.run, course.dataset, course.rows))


def check_finite(metrics):
    """Raises UserError if one of the metrics, {name: number}, is NaN or infinite."""
    bad = [name for name, value in metrics.items() if not math.isfinite(float(value))]
    if bad:
        raise UserError(
            f"{', '.join(bad)} became NaN or infinite, so training stopped; the last checkpoint is from before. "
            "Lower learning_rate, in a new run_dir"
        )
