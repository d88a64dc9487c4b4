import contextlib
import io
import sys
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from cdc_keras import progress
from cdc_keras.errors import UserError
from cdc_keras.runs import callbacks
from cdc_keras.runs.callbacks import Pictures, Progress, TensorBoard, check_finite
from cdc_keras.runs.stopping import StopOnSignal


class Terminal(io.StringIO):
    def isatty(self):
        return True


def course(steps_per_call=1, rows=(), path=None):
    """What the callbacks see of a run of 4 epochs, each of 20 batches of 50 images."""
    config = types.SimpleNamespace(batch_size=50, epochs=4)
    run = types.SimpleNamespace(writes=True, path=path)
    return types.SimpleNamespace(
        config=config,
        run=run,
        dataset=None,
        rows=list(rows),
        steps_per_epoch=20,
        total=80,
        steps_per_batch_end=steps_per_call,
    )


def train(callback, epoch, calls, metrics, first_step):
    """Calls a callback as `fit` does in one epoch."""
    callback.set_model(types.SimpleNamespace(steps_done=first_step, stop_training=False))
    callback.on_epoch_begin(epoch)
    for batch in calls:
        callback.on_train_batch_end(batch, metrics)
    callback.model.steps_done = (epoch + 1) * 20
    callback.on_epoch_end(epoch, metrics)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_metric_that_is_not_finite_is_named(value):
    with pytest.raises(UserError, match="discriminator_loss became NaN or infinite"):
        check_finite({"reconstruction_loss": 0.1, "discriminator_loss": value})


@pytest.mark.parametrize("terminal", [False, True], ids=["log file", "terminal"])
@pytest.mark.parametrize(("chunk", "calls"), [(1, range(10)), (5, range(2))])
def test_progress_tells_metrics_speed_and_time_left_of_the_whole_run(chunk, calls, terminal, monkeypatch):
    printed, now = Terminal() if terminal else io.StringIO(), [0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", printed)
    callback = Progress(course(chunk))
    callback.set_model(types.SimpleNamespace(steps_done=30, stop_training=False))
    callback.on_epoch_begin(1)
    for batch in calls:
        now[0] += 100 * chunk
        callback.on_train_batch_end(batch, {"loss": np.float32(0.5)})
    last = printed.getvalue().replace("\r", "\n").strip().splitlines()[-1]
    # A step of 50 images takes 100 s, and 40 of the 80 steps are left after the second epoch: 4,000 s.
    assert last.startswith("epoch 2/4") and "loss 0.5" in last and "2000/4000 images" in last
    assert "0.50 images/s" in last and "1:06:40 left" in last
    assert terminal or "\r" not in printed.getvalue()


def test_a_log_file_gets_a_line_an_epoch_and_one_every_half_minute(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    rows = [{"epoch": 3.0, "loss": 0.25, "val_top1": 0.5, "seconds": 3.0}]
    train(Progress(course(rows=rows)), 2, range(20), {"loss": 0.25}, first_step=40)
    assert printed.getvalue() == "epoch 3/4  loss 0.25  val_top1 0.5\n"


def test_an_error_takes_the_bar_off_the_terminal(monkeypatch):
    printed, now = Terminal(), [0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", printed)
    with pytest.raises(UserError), Progress(course()) as callback:
        callback.set_model(types.SimpleNamespace(steps_done=0, stop_training=False))
        callback.on_epoch_begin(0)
        for batch in range(20):
            now[0] += 100
            callback.on_train_batch_end(batch, {"loss": 0.5})
        assert printed.getvalue().split("\r")[-1].startswith("epoch 1/4")
        raise UserError("loss became NaN")
    *_, line, after = printed.getvalue().split("\r")
    assert not line.strip() and not after


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_bar_is_closed_without_a_warning_where_its_stream_was_closed_before(stream, monkeypatch, recwarn):
    printed, now = stream(), [0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", printed)
    bar = progress.Bar(10, "images")
    now[0] += 100
    bar.update(5)
    assert "5/10 images" in printed.getvalue()
    printed.close()
    bar.close()
    assert bar.disable and not recwarn.list


def test_metrics_are_fetched_only_when_the_bar_is_drawn(monkeypatch):
    class Fetched:
        def __float__(self):
            raise AssertionError("fetched")

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    callback = Progress(course())
    callback.set_model(types.SimpleNamespace(steps_done=0, stop_training=False))
    callback.on_epoch_begin(0)
    for batch in range(20):
        callback.on_train_batch_end(batch, {"loss": Fetched()})


@pytest.mark.parametrize(("seconds", "shown"), [(0, ""), (100, "reading: 3/3 files, 00:00 left,  0.01 files/s\n")])
def test_a_bar_of_items_gives_them_and_is_silent_if_they_come_fast(seconds, shown, monkeypatch):
    printed, now = io.StringIO(), [0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", printed)
    items = []
    for item in progress.Bar(3, "files", "reading", items="abc"):
        now[0] += seconds
        items.append(item)
    assert items == ["a", "b", "c"] and printed.getvalue().endswith(shown) and bool(printed.getvalue()) == bool(shown)


def test_nothing_is_shown_by_a_worker_that_is_not_the_chief(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    bar = progress.Bar(10, "images", shown=False)
    bar.update(10)
    bar.close()
    assert printed.getvalue() == ""


@pytest.mark.parametrize(("seconds", "drawn"), [(60, [0, 1, 3, 7]), (20, [3, 7]), (1, [])])
def test_pictures_are_drawn_after_epochs_1_2_4_and_8_but_not_more_often_than_every_minute(monkeypatch, seconds, drawn):
    now, found = [0.0], []
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(callbacks, "draw_training", lambda *arguments: found.append(epoch))
    callback = Pictures(course(rows=[]))
    callback.set_model(types.SimpleNamespace(steps_done=0))
    for epoch in range(10):
        now[0] += seconds
        callback.on_epoch_over(epoch, {})
    assert found == drawn


def test_event_files_hold_the_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = TensorBoard(course(rows=[{"lambda_fool": 0.25}], path=tmp_path))
    callback.set_model(types.SimpleNamespace(steps_done=20))
    callback.on_epoch_end(0, {})
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    (point,) = events.Tensors("lambda_fool")
    assert (point.step, tf.make_ndarray(point.tensor_proto)) == (20, 0.25)


def test_outside_the_main_thread_training_goes_on_without_handlers_of_signals():
    errors = []

    def use():
        try:
            with StopOnSignal() as stop:
                assert not stop.handlers
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors
    with StopOnSignal() as stop, contextlib.nullcontext():
        assert len(stop.handlers) == 2
