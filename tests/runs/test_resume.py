"""A run that is killed, at any moment and however often, ends with the weights and metrics of one that was not.

KILLS is how often each run is killed; `make long` sets it to 20.
"""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_runs
from runs_on_disk import metrics, newest_step, values

from cdc_keras.runs.folder import RunFolder, flagfile
from cdc_keras.runs.training import train

KILLS = int(os.environ.get("KILLS", "1"))
LONGER = dict(
    train_limit=96,
    epochs=max(2, KILLS // 2),
    validation_fraction=0.2,
    checkpoint_every="3",
    discriminators=2,
    discriminator_reset_epochs=1,
)
EXTRACTOR = dataclasses.replace(tiny_runs.EXTRACTOR, **LONGER)
CLASSIFIER = dataclasses.replace(tiny_runs.CLASSIFIER, **LONGER, network="wrn10_1")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return train(dataclasses.replace(CLASSIFIER, epochs=1), folder, pictures=False).path


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["extractor", "classifier", "attention transfer"])
def test_a_killed_run_ends_as_one_that_was_not_killed(name, request, tmp_path):
    config = EXTRACTOR if name == "extractor" else CLASSIFIER
    if name == "attention transfer":
        teacher = request.getfixturevalue("teacher")  # trained for those alone who need it
        config = dataclasses.replace(config, network="resnet8", teacher=str(teacher))
    straight = RunFolder(tmp_path / "straight")
    (tmp_path / "flags.txt").write_text(flagfile(config))
    assert start(tmp_path / "flags.txt", straight.path).wait() == 0, straight.path.with_name("log").read_text()[-2000:]
    killed = tmp_path / "killed"
    rng = np.random.default_rng(len(name))
    for _ in range(KILLS):
        before = newest_step(killed)
        kill_at_a_random_moment(straight.path / "flags.txt", killed, rng)
        assert newest_step(killed) >= before, "the last good checkpoint is gone"
    done = start(straight.path / "flags.txt", killed)
    assert done.wait() == 0, killed.with_name("log").read_text()[-2000:]

    last = straight.steps()[-1]
    assert newest_step(killed) == last
    ours, theirs = (values(run / "checkpoints" / f"step-{last:08d}.weights.h5") for run in (straight.path, killed))
    assert ours.keys() == theirs.keys() and len(ours) > 30
    assert not [key for key in ours if not np.array_equal(ours[key], theirs[key])]
    assert metrics(straight.path) == metrics(killed)


def start(flagfile, folder):
    command = [sys.executable, "train.py", f"--flagfile={flagfile}", f"--run_dir={folder}"]
    folder.mkdir(exist_ok=True)
    with open(folder.with_name("log"), "a") as log:
        return subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[2], stdout=log, stderr=log)


def kill_at_a_random_moment(flagfile, folder, rng):
    """Kills a run while it starts, while it saves, or some time after it has saved."""
    process = start(flagfile, folder)
    moment = rng.choice(["starting", "saving", "between saves"])
    saved, deadline = newest_step(folder), time.monotonic() + 120
    if moment == "starting":
        time.sleep(rng.uniform(0, 8))
    while moment != "starting" and process.poll() is None and time.monotonic() < deadline:
        if moment == "saving" and list(folder.glob("checkpoints/.*.partial.*")):
            break
        if moment == "between saves" and newest_step(folder) > saved:
            time.sleep(rng.uniform(0, 0.3))
            break
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
