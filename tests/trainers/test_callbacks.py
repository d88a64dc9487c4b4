import io

import numpy as np
import pytest

from cdc_keras.errors import UserError
from cdc_keras.trainers.callbacks import Progress, TensorBoardLog, check_finite, duration, sys, time


@pytest.mark.parametrize(("seconds", "text"), [(12.3, "12 s"), (180, "3 min"), (18_720, "5.2 h")])
def test_a_duration_is_told_in_the_unit_a_person_would_use(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reading_that_is_not_finite_is_named(value):
    with pytest.raises(UserError, match="discriminator_loss became NaN or infinite"):
        check_finite({"reconstruction_loss": 0.1, "discriminator_loss": value})


@pytest.mark.parametrize(("chunk", "calls"), [(1, range(9, 20)), (5, range(1, 4))])
def test_progress_tells_step_speed_and_time_left_of_the_whole_run(chunk, calls, monkeypatch):
    clock, printed = iter(range(0, 10_000, 100)), io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", printed)
    shown = Progress(epochs=4, steps_per_epoch=20, batch_size=50, steps_per_chunk=chunk, first_step=20)
    for batch in calls:
        shown.on_train_batch_end(batch, {"loss": 0.5})
    last = printed.getvalue().splitlines()[-1]
    # 100 s from call to call: chunk * 50 images each, and 40 of the 80 steps are left after the second epoch
    assert last.startswith("epoch 2/4  step 20/20") and "loss 0.5" in last
    assert f"{chunk * 50 / 100:.0f} images/s" in last
    assert f"{duration(40 / chunk * 100)} left" in last


def test_event_files_hold_the_readings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    TensorBoardLog(tmp_path).write(7, {"lambda_fool": 0.25})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (point,) = events.Scalars("lambda_fool")
    assert (point.step, point.value) == (7, 0.25)
