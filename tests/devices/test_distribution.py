"""Several logical CPUs do what one does, in processes of their own (tests/distributed.py)."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from cdc_keras.trainers.metrics import Mean, hits

ROOT = pathlib.Path(__file__).resolve().parents[2]


def apart(kind, replicas, floatx, steps):
    command = [sys.executable, "tests/distributed.py", kind, str(replicas), floatx, str(steps)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["extractor", "classifier", "transfer"])
def test_after_twenty_steps_in_float64_weights_losses_and_metrics_are_those_of_one_device(kind):
    """Evaluated are 45 images in batches of 32, so that the last one is no multiple of 4."""
    found = apart(kind, 4, "float64", 20)
    assert found["weights"] < 1e-8  # measured: 3e-14
    assert max(found["metrics"].values()) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("classifier", marks=pytest.mark.long), "transfer"])
def test_after_one_step_in_float32_weights_are_those_of_one_device(kind):
    """The extractor is not here: Adam's first step is +-2e-4 whatever the gradient, and some are rounding alone."""
    assert apart(kind, 2, "float32", 1)["weights"] < 1e-5  # measured: 4e-7


def test_a_mean_is_that_of_all_values_each_by_its_weight():
    mean = Mean("metric")
    mean.update_state([1.0, 2.0])
    mean.update_state(5.0, sample_weight=2)
    mean.update_state([7.0, 100.0], sample_weight=[True, False])
    assert float(mean.result()) == pytest.approx((1 + 2 + 5 * 2 + 7) / 5)
    mean.reset_state()
    assert float(mean.result()) == 0


@pytest.mark.parametrize("k", [1, 5])
def test_hits_are_where_the_label_is_among_the_highest_logits(k):
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(4, size=(200, 12)).astype("float32"), rng.integers(12, size=200)  # many are equal
    expected = [label in np.argsort(-row, kind="stable")[:k] for row, label in zip(logits, labels, strict=True)]
    assert np.array_equal(keras.ops.convert_to_numpy(hits(logits, keras.ops.convert_to_tensor(labels), k)), expected)


WHOLE_RUN = """
import dataclasses, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(2)])
from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.runs.evaluation import evaluate
from cdc_keras.runs.training import train
folder = sys.argv[1]
extractor = RunConfig(train_limit=64, batch_size=16, epochs=2, strategy="mirrored", checkpoint_every="3")
train(extractor, folder + "/extractor")
gated = dataclasses.replace(
    extractor, task="classifier", network="resnet8", warmup_epochs=0.1, extractor=folder + "/extractor"
)
run = train(gated, folder + "/gated")
rows = run.rows()
run.checkpoint(run.steps()[-1]).unlink()
run.note(finished=False)
rows_again = train(gated, run.path).rows()
assert [r["loss"] for r in rows] == [r["loss"] for r in rows_again], (rows, rows_again)
assert 0 <= evaluate(run.path)["top1"] <= 1
try:
    train(dataclasses.replace(extractor, batch_size=15), folder + "/other")
except UserError as error:
    print(error)
"""


@pytest.mark.long
def test_a_whole_mirrored_run_trains_gates_goes_on_and_is_scored(tmp_path):
    done = subprocess.run([sys.executable, "-c", WHOLE_RUN, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a batch of 15 cannot be shared equally among 2 devices" in done.stdout
