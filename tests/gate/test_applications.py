"""The model classes of keras.applications take a gate at their default sites, as docs/applications.md says.

`python tests/gate/test_applications.py` writes its table anew; CLASSES=VGG16,VGG19 before it does so for these.
"""

import inspect
import os
import pathlib
import tempfile
import textwrap
import time

import keras
import numpy as np
import pytest
from keras import layers

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import parts
from cdc_keras.networks import autoencoder

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "applications.md"
CLASSES = sorted(name for name, x in vars(keras.applications).items() if inspect.isfunction(x))
SIZES = (32, 128, 224)  # pixels, of the extractors that there are; the smallest that a class takes
HEAD = """# The gate in keras.applications

**Every model class of `keras.applications` takes a gate, which changes nothing before training.** A *site* is a layer
behind which the gate sits. A model without layers at the resolution of the context T, or at twice that, is gated at its
two best other sites. The models have initial weights, and the smallest size that they take of 32, 128 and 224 px.

*Identity*: the largest difference between the answers of the gated model, before training, and those of the plain one.
*Trains*: three steps move every kernel of the gate. *Reloaded*: after `save` and `load_model` the trained model answers
the same. *Exported*: the answers of its SavedModel differ by less than a thousandth of the largest, or by less than a
change of the images by a millionth causes. In networks that add branches, the scales of batch norms start at a tenth.
Otherwise the deepest would magnify rounding too much to be compared.
`python tests/gate/test_applications.py` writes this page.

Keras' `export` leaves augmentation on, such as a `RandomFlip` inside the model, with a gate and without. A model called
for inference is exported without it: `keras.Model(images, gated(images, training=False)).export(...)`.

Compiled, as by `predict`, oneDNN computes a convolution and the batch norm behind it in one. A gate between the two,
which is no default site, then starts with a difference of some millionths.

Small `ResNetBackbone`, `VGGBackbone` and `DenseNetBackbone` models of keras_hub 0.32 at 32 px start with a difference
of 0 and answer the same after `load_model`. `ViTBackbone` has no feature maps and is refused in one sentence. So is
`EfficientNetBackbone`, which takes images of any size; inside a model of 32 px it has no usable site.

| class | px | default sites | identity | trains | reloaded | exported |
|---|---:|---|---:|---|---|---|
"""


def build(name):
    """Returns (model, images) at the smallest size that the class takes."""
    for size in SIZES:
        try:
            arguments = {"weights": None, "classes": 5, "classifier_activation": None}
            model = getattr(keras.applications, name)(input_shape=(size, size, 3), **arguments)
        except ValueError as error:
            if "at least" not in str(error):
                raise
            continue
        images = np.random.default_rng(0).uniform(-1, 1, (8, size, size, 3)).astype("float32")
        if any(isinstance(layer, layers.Rescaling | layers.Normalization) for layer in model.layers):
            images = (images + 1) * 127.5
        # Statistics of these images, as a trained network has them: with those of a new one the answers are all zeros.
        # Small branches and, meanwhile, no dropout: else the deepest networks magnify rounding, and answer up to 1e7.
        norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
        if any(isinstance(layer, layers.Add) for layer in model.layers):
            for layer in norms:
                if layer.scale:
                    layer.gamma.assign(layer.gamma * 0.1)
        changed = [(layer, "momentum", 0.0) for layer in norms]
        changed += [(layer, "rate", 0.0) for layer in model.layers if isinstance(layer, layers.Dropout)]
        before = [getattr(layer, name) for layer, name, _ in changed]
        for layer, name, value in changed:
            setattr(layer, name, value)
        model(images, training=True)
        for (layer, name, _), value in zip(changed, before, strict=True):
            setattr(layer, name, value)
        return model, images[:2]
    raise AssertionError(f"{name} takes none of {SIZES} px")


def row(name):
    """Returns the line of the table: what was tried, not what is expected."""
    keras.utils.set_random_seed(0)
    keras.utils.clear_session()
    plain, images = build(name)
    size = images.shape[1]
    gated = attach(plain, autoencoder.encoder(size))
    identity = abs(np.asarray(gated(images, training=False)) - np.asarray(plain(images, training=False))).max()
    trains = moves_every_kernel(gated, images)
    answer = np.asarray(gated(images, training=False))
    with tempfile.TemporaryDirectory() as folder:
        gated.save(f"{folder}/gated.keras")
        reloaded = np.array_equal(keras.models.load_model(f"{folder}/gated.keras")(images, training=False), answer)
        gated.export(f"{folder}/exported", verbose=False)
        served = keras.layers.TFSMLayer(f"{folder}/exported", call_endpoint="serve")(images)
        touched = abs(np.asarray(gated(images * np.float32(1 + 1e-6), training=False)) - answer).max()
        exported = abs(np.asarray(served) - answer).max() < max(1e-3 * abs(answer).max(), touched)
    sites = ", ".join(f"{gate.name} ({'x'.join(map(str, shape(gated, gate.name)))})" for gate in parts(gated).sites)
    checks = " | ".join("yes" if passed else "no" for passed in (trains, reloaded, exported))
    return f"| {name} | {size} | {sites} | {identity:g} | {checks} |"


def moves_every_kernel(gated, images):
    """Whether three steps move all kernels of the gate; the network's own layers are frozen, to spare time."""
    for layer in gated.layers:
        layer.trainable = layer.name.startswith("gate_")
    kernels = [v for v in gated.trainable_variables if v.path.endswith("/kernel")]
    before = [v.numpy() for v in kernels]
    gated.compile(keras.optimizers.Adam(1e-3), "mse", run_eagerly=True)
    for _ in range(3):
        gated.train_on_batch(images, np.eye(2, 5))
    return all((v.numpy() != old).any() for v, old in zip(kernels, before, strict=True))


def shape(model, layer):
    return model.get_layer(layer).output.shape[1:3]


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSES)
def test_it_is_gated_saved_and_exported_as_the_table_says(name):
    assert row(name) in TABLE.read_text().splitlines()


def test_every_check_of_every_class_in_the_table_passed():
    rows = written()
    assert TABLE.read_text() == page(rows) and rows.keys() <= set(CLASSES)
    assert rows and all(line.endswith("| 0 | yes | yes | yes |") for line in rows.values())


def written():
    """Returns {class: its line of the table}."""
    lines = TABLE.read_text().removeprefix(HEAD).splitlines() if TABLE.exists() else []
    return {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}


def page(rows):
    missing = [name for name in CLASSES if name not in rows]
    end = textwrap.fill(f"These have no row yet: {', '.join(missing)}.", 120) if missing else ""
    return HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows)) + (f"\n{end}\n" if end else "")


if __name__ == "__main__":
    rows = written()
    for name in os.environ.get("CLASSES", ",".join(CLASSES)).split(","):
        start = time.time()
        rows[name] = row(name)
        print(rows[name], f"{time.time() - start:.0f} s", flush=True)
        TABLE.write_text(page(rows))
