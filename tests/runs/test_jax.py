"""Whole runs under JAX: trained there and scored under TensorFlow, and the other way about."""

import json
import os
import subprocess
import sys

import pytest
from commands import JAX
from tiny_runs import EXTRACTOR

from cdc_keras.runs.evaluation import measure
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.training import train


@pytest.mark.long
def test_a_run_trained_under_tensorflow_evaluates_under_jax(tmp_path):
    run = train(EXTRACTOR, tmp_path / "run", pictures=False)
    expected = measure(run.path, split="validation").scores
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"--model={run.path}", "--split=validation"],
        env=os.environ | JAX,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads((run.path / "evaluation-validation-last.json").read_text())
    assert got["environment"]["backend"] == "jax"
    # float32 convolutions of two libraries
    for name in ("reconstruction_loss", "discriminator_loss"):
        assert got[name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.slow
def test_jax_trains_a_whole_run_without_importing_tensorflow_and_tensorflow_evaluates_it(tmp_path):
    program = (
        "import sys; from cdc_keras.runs.training import train; from cdc_keras.config import RunConfig;"
        "config = RunConfig(train_limit=32, batch_size=16, epochs=1, validation_fraction=0.5);"
        "train(config, sys.argv[1], pictures=False);"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "run"],
        env=os.environ | JAX,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no TensorBoard curves" in done.stderr and not (tmp_path / "run" / "tensorboard").exists()
    trained = RunFolder(tmp_path / "run").rows()[-1]
    scores = measure(tmp_path / "run", split="validation").scores
    assert scores["reconstruction_loss"] == pytest.approx(trained["val_reconstruction_loss"], rel=1e-4)
