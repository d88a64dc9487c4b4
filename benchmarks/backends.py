"""The same extractor steps under TensorFlow and JAX, from the same weights and data: how far the losses part.

    python -m benchmarks.backends --steps 200

Dropout is off: the backends draw other random numbers. Every loss is the mean over the steps since the line before. Two
players amplify rounding, so a third run, TensorFlow again but from weights that differ in about the last bit of
float32, shows how far losses part by that alone.
"""

import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np

from cdc_keras.markdown import markdown_table

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH_SIZE, LINES = 32, 10
BAR = 0.01


def train(folder, steps, name):
    """Trains with the backend of this process and leaves {loss: its mean over each tenth of the steps} as NAME.npz."""
    import keras

    from cdc_keras.data.pipeline import training_batches
    from cdc_keras.data.shapes import shapes
    from cdc_keras.trainers.disentangler import Disentangler

    random.seed(0)  # of the initial weights
    model = Disentangler(32, 10, fool_ramp_steps=steps // 2)
    for layer in model.discriminator.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile()
    start = folder / "start.weights.h5"
    if not start.exists():
        model.save_weights(start)
    model.load_weights(start)
    if name == "control":
        for variable in model.trainable_variables:
            variable.assign(variable * (1 + 1e-7))
    split = shapes(BATCH_SIZE * steps, seed=0)
    history = {}
    for line in range(LINES):
        batches = training_batches(
            split, 32, first_step=line * steps // LINES, batch_size=BATCH_SIZE, seed=0, epoch=0, flip=True
        )
        # steps_per_call stays 1: XLA compiles convolutions badly inside a loop on CPU
        history_of_line = model.fit(batches, steps_per_epoch=steps // LINES, shuffle=False, verbose=0).history
        for loss in ("reconstruction_loss", "discriminator_loss", "fooling_loss"):
            history.setdefault(loss, []).append(history_of_line[loss][0])
    np.savez(folder / f"{name}.npz", **history)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="training steps of 32 images")
    parser.add_argument("--train", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        name, folder = arguments.train
        train(pathlib.Path(folder), arguments.steps, name)
        return

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # TensorFlow first: it writes the weights all start from
        for run, backend in (("tensorflow", "tensorflow"), ("jax", "jax"), ("control", "tensorflow")):
            command = [sys.executable, __file__, f"--steps={arguments.steps}", "--train", run, folder]
            subprocess.run(command, env=os.environ | {"KERAS_BACKEND": backend}, check=True)
        ours, theirs, control = (dict(np.load(folder / f"{run}.npz")) for run in ("tensorflow", "jax", "control"))
    rows = [
        ((i + 1) * arguments.steps // LINES, *(f"{ours[loss][i]:.5f} / {theirs[loss][i]:.5f}" for loss in ours))
        for i in range(LINES)
    ]
    print(markdown_table(("steps", *(f"{loss}, TensorFlow / JAX" for loss in ours)), rows))
    overall = _apart(ours, theirs, np.mean)
    print(f"\nlargest difference over all {arguments.steps} steps: {overall:.2%}; bar {BAR:.0%}: ", end="")
    print("reached" if overall <= BAR else "not reached")
    by_line, by_rounding = _apart(ours, theirs, np.asarray), _apart(ours, control, np.asarray)
    print(f"largest difference in one line: {by_line:.2%}; of a run that differs by rounding alone: {by_rounding:.2%}")


def _apart(ours, others, mean):
    """Returns the largest relative difference of any loss, after `mean` of its values."""
    return max(float(np.max(np.abs(mean(others[loss]) / mean(ours[loss]) - 1))) for loss in ours)


if __name__ == "__main__":
    main()
