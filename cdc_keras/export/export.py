"""A trained network as a folder that others run without Keras and this library: from images to answers.

Preprocessing and extractor are inside. The first target is TensorFlow Serving, the second ONNX.
"""

import json
import os
import pathlib
import shutil

import keras
import tensorflow as tf

from cdc_keras.choices import EXPORT_FORMATS, ZOO
from cdc_keras.errors import UserError
from cdc_keras.export import onnx, saved_model
from cdc_keras.runs.environment import environment
from cdc_keras.runs.trained import load_trained

CLASSES, METADATA = "classes.txt", "metadata.json"


def export(source, out, *, version=None, format="saved_model"):  # noqa: A002
    """Writes `<out>/<version>/`, a SavedModel or ONNX files with their metadata, and returns the path.

    The signatures of a SavedModel, each for any number of images B of S px; S, K categories and the shape of T are the
    network's:

    * `serving_default`: images (B, S, S, 3) uint8 -> of a classifier probabilities (B, K), top_labels and top_scores
      (B, min(5, K)), of an extractor context (B, h, w, C).
    * `serve_bytes`: image_bytes (B,), each a JPEG or PNG of at most `image_bytes.PIXEL_LIMIT` pixels -> the same.
    * `explain`, of a classifier: images -> also focus (B, S, S) in [0, 1], where the features are strong at the end
      (`maps.focus_map` of `maps.last_features`), and of a gated one attention (B, h, w), M, and channel_weights_<site>
      (B, C), the C of Eq. 4 at each site.
    * `context`, of an extractor and of what is gated by one: images -> context, T.

    Of these, ONNX has one file each, without `serve_bytes`, and gives top_classes, numbers, for labels.

    Args:
        source: path of a finished run, or "zoo:<name>".
        out: folder of the model, whose name TF Serving knows it by.
        version: whole number, above 0; by default the one after the newest in `out`.
        format: one of `choices.EXPORT_FORMATS`.

    Raises:
        UserError: there is no such network, the version exists, or it can not be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"the graph is TensorFlow's; set KERAS_BACKEND=tensorflow, not {keras.backend.backend()}")
    if format not in EXPORT_FORMATS:
        raise UserError(f"format is one of {', '.join(EXPORT_FORMATS)}, not {format!r}")
    if version is not None and version < 1:
        raise UserError(f"version is a whole number above 0, not {version}")
    found, out = load_trained(source), pathlib.Path(out).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        version = version or 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)
        folder, partial = out / str(version), out / f".{version}.partial"
        if folder.exists():
            raise UserError(f"{folder} exists; a version is not written again: leave --version out for the next one")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            _write(partial, out.resolve().name, source, found, format)
            os.replace(partial, folder)  # TF Serving looks for numbers, and may look at any time
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:  # TensorFlow writes the graph and has errors of its own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"can not write a model to {out}: {reason}; choose another folder") from error
    return folder


def _write(folder, name, source, found, format):  # noqa: A002
    """Writes the version of the model `name` that computes what the `Trained` `found` does."""
    classes = folder / CLASSES
    classes.write_text("".join(f"{' '.join(label.split())}\n" for label in found.class_names))
    if format == "onnx":
        signatures = onnx.write(folder, found)
    else:
        signatures = saved_model.write(folder, name, found, classes)
        classes.unlink()  # it is among the assets now
    described = {
        "source": ZOO * (found.record_sha256 is not None) + pathlib.Path(str(source).removeprefix(ZOO)).name,
        "record_sha256": found.record_sha256,
        "weights_sha256": found.sha256,
        "kind": found.config.task,
        "network": found.config.network if found.config.task == "classifier" else found.config.context,
        "image_size": found.config.image_size,
        "classes": len(found.class_names),
        "signatures": {key: _described(function) for key, function in signatures.items()},
        **({"not_converted": onnx.NOT_CONVERTED} if format == "onnx" else {}),
        **environment(),
    }
    (folder / METADATA).write_text(json.dumps(described, indent=2) + "\n")


def _described(function):
    """Returns the inputs and outputs of a concrete function, {name: "dtype shape"}."""
    text = lambda spec: f"{spec.dtype.name} {tuple(spec.shape)}"  # noqa: E731
    return {
        "inputs": {spec.name: text(spec) for spec in function.structured_input_signature[0]},
        "outputs": {name: text(spec) for name, spec in function.structured_outputs.items()},
    }
