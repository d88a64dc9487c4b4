"""TensorFlow and JAX train the same network alike, and JAX does so without TensorFlow.

Run as a script, this file is the JAX side: `KERAS_BACKEND=jax python test_step.py FOLDER`. It reads the weights
that the TensorFlow side left in the folder and leaves there what it computed.
"""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
from commands import JAX

from cdc_keras.data.dataset import Split
from cdc_keras.data.pipeline import training_batches
from cdc_keras.trainers.disentangler import Disentangler

STEPS, BATCH_SIZE = 5, 8
RNG = np.random.default_rng(0)
SPLIT = Split(
    RNG.integers(256, size=(STEPS * BATCH_SIZE, 32, 32, 3), dtype=np.uint8),
    (np.arange(STEPS * BATCH_SIZE) % 4).astype("int32"),
)
IMAGES, LABELS = (SPLIT.images[:4] / 127.5 - 1).astype("float32"), SPLIT.labels[:4]
COMPARED = ("reconstruction_loss", "repulsive_loss", "discriminator_loss", "fooling_loss")


def build():
    """An extractor in training in which every loss counts from the second step on.

    Without dropout: the backends draw other random numbers.
    """
    loud = {"fool_weight": 1.0, "fool_ramp_steps": 2, "repulsive_weight": 1.0, "repulsive_delta": 1.0}
    model = Disentangler(32, 4, discriminator_width=8, **loud)
    for layer in model.discriminator.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile()
    return model


def network_variables(model):
    """All that training moves, in the order of building; random states have other names in every process."""
    variables = model.encoder.variables + model.decoder.variables + model.discriminator.variables
    return [v for v in variables if not v.path.endswith("seed_generator_state")]


def train(model, first_step, steps, steps_per_call=1):
    """The metrics of `steps` training steps of the one epoch there is, from `first_step` on."""
    batches = training_batches(
        SPLIT,
        32,
        first_step=first_step,
        steps_per_call=steps_per_call,
        batch_size=BATCH_SIZE,
        seed=0,
        epoch=0,
        crop_padding=4,
        flip=True,
    )
    chunks = steps // steps_per_call if keras.backend.backend() == "jax" else steps
    history = model.fit(batches, steps_per_epoch=chunks, shuffle=False, verbose=0).history
    return [history[name][0] for name in COMPARED]


def outputs(model):
    return {"context": np.array(model(IMAGES)), "reconstruction": np.array(model(IMAGES, LABELS))}


def weights(model):
    return {f"{i} {v.path}": np.array(v.value) for i, v in enumerate(network_variables(model))}


def jax_side(folder):
    """What one process under JAX computes for all tests below; one, as compiling takes most of the time."""
    model = build()
    model.load_weights(folder / "tensorflow.weights.h5")
    np.savez(folder / "jax_from_tensorflow.npz", **outputs(model))

    metrics = [train(model, 0, 1), train(model, 1, 1)]
    np.savez(folder / "two_chunks_of_one.npz", **weights(model))
    metrics += [train(model, step, 1) for step in range(2, STEPS)]
    np.savez(folder / "metrics.npz", metrics=metrics)
    model.save_weights(folder / "jax.weights.h5")
    np.savez(folder / "jax_own.npz", **outputs(model))

    model = build()
    model.load_weights(folder / "tensorflow.weights.h5")
    train(model, 0, 2, steps_per_call=2)
    np.savez(folder / "one_chunk_of_two.npz", **weights(model))
    (folder / "modules.json").write_text(json.dumps(sorted(sys.modules)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    model = build()
    reference.randomise(network_variables(model))
    model.save_weights(folder / "tensorflow.weights.h5")
    environment = os.environ | JAX
    paths = [*map(str, pathlib.Path(__file__).parents[1:3]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run([sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts from the TensorFlow side"),
]


def test_jax_trains_without_importing_tensorflow(folder):
    modules = json.loads((folder / "modules.json").read_text())
    assert "jax" in modules and "cdc_keras.trainers.disentangler" in modules
    assert "tensorflow" not in modules


# 1e-5 on outputs of size one: float32 convolutions of two libraries, six layers deep.
def test_weights_saved_under_tensorflow_give_the_same_t_and_reconstruction_under_jax(folder):
    model = build()
    model.load_weights(folder / "tensorflow.weights.h5")
    got = np.load(folder / "jax_from_tensorflow.npz")
    for name, expected in outputs(model).items():
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_weights_saved_under_jax_give_the_same_t_and_reconstruction_under_tensorflow(folder):
    model = build()
    model.load_weights(folder / "jax.weights.h5")
    expected = np.load(folder / "jax_own.npz")
    for name, got in outputs(model).items():
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=1e-5 * abs(expected[name]).max())


def test_five_steps_have_the_same_losses_under_both_backends(folder):
    model = build()
    model.load_weights(folder / "tensorflow.weights.h5")
    got = np.array([train(model, step, 1) for step in range(STEPS)])
    # Rounding decides where Adam moves a weight of gradient 0; over five steps that stays below 1%.
    np.testing.assert_allclose(got, np.load(folder / "metrics.npz")["metrics"], rtol=0.01)


def test_two_chunks_of_one_step_and_one_chunk_of_two_give_the_same_weights(folder):
    one, two = (np.load(folder / f"{name}.npz") for name in ("two_chunks_of_one", "one_chunk_of_two"))
    assert one.files == two.files
    for name in one.files:
        # A loop is another program to the compiler, so sums round differently, and Adam divides by gradients near 0. A
        # step is 2e-4 in every weight; a tenth of the two is the limit.
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=4e-5, err_msg=name)


if __name__ == "__main__":
    jax_side(pathlib.Path(sys.argv[1]))
