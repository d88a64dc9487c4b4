"""The model classes of keras.applications take a gate at their default sites, as docs/applications.md says.

`python tests/gate/test_applications.py` writes its table anew; CLASSES=VGG16,VGG19 before it does so for these.
"""

import inspect
import os
import pathlib
import tempfile

import keras
import numpy as np
import pytest

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import parts
from cdc_keras.networks import autoencoder

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "applications.md"
CLASSES = sorted(name for name, x in vars(keras.applications).items() if inspect.isfunction(x))
SIZES = (32, 128, 224)  # pixels, of the extractors that there are; the smallest that a class takes
HEAD = """# The gate in keras.applications

Model classes without released weights, at the smallest size that they take of 32, 128 and 224 px. *Identity*: the
gated model answers exactly as the plain one. *Reloaded*: after `save` and `load_model` it answers the same. *Exported*:
the SavedModel answers the same but for rounding. `python tests/gate/test_applications.py` writes this page.

| class | px | default sites | identity | reloaded | exported |
|---|---:|---|---|---|---|
"""


def build(name):
    """Returns (model, pixels) at the smallest size that the class takes."""
    for size in SIZES:
        try:
            return getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None, classes=5), size
        except ValueError as error:
            if "at least" not in str(error):
                raise
    raise AssertionError(f"{name} takes none of {SIZES} px")


def row(name):
    """Returns the line of the table: what was tried, not what is expected."""
    keras.utils.set_random_seed(0)
    keras.utils.clear_session()
    plain, size = build(name)
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    gated = attach(plain, autoencoder.encoder(size))
    answer = np.asarray(gated(images, training=False))
    identity = np.array_equal(answer, plain(images, training=False))
    with tempfile.TemporaryDirectory() as folder:
        gated.save(f"{folder}/gated.keras")
        reloaded = np.array_equal(keras.models.load_model(f"{folder}/gated.keras")(images, training=False), answer)
        gated.export(f"{folder}/exported", verbose=False)
        served = keras.layers.TFSMLayer(f"{folder}/exported", call_endpoint="serve")(images)
        exported = np.allclose(served, answer, rtol=1e-3, atol=1e-4)
    sites = ", ".join(f"{gate.name} ({'x'.join(map(str, shape(gated, gate.name)))})" for gate in parts(gated).sites)
    checks = " | ".join("yes" if passed else "no" for passed in (identity, reloaded, exported))
    return f"| {name} | {size} | {sites} | {checks} |"


def shape(model, layer):
    return model.get_layer(layer).output.shape[1:3]


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSES)
def test_it_is_gated_saved_and_exported_as_the_table_says(name):
    assert row(name) in TABLE.read_text().splitlines()


def test_every_check_of_every_class_in_the_table_passed():
    text = TABLE.read_text()
    assert text.startswith(HEAD)
    lines = text.removeprefix(HEAD).splitlines()
    assert lines and {line.split("|")[1].strip() for line in lines} <= set(CLASSES)
    assert all(line.endswith("| yes | yes | yes |") for line in lines)


if __name__ == "__main__":
    written = TABLE.read_text().removeprefix(HEAD).splitlines() if TABLE.exists() else []
    rows = {line.split("|")[1].strip(): line for line in written}
    for name in os.environ.get("CLASSES", ",".join(CLASSES)).split(","):
        rows[name] = row(name)
        print(rows[name], flush=True)
        TABLE.write_text(HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)))
