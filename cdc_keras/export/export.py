"""A trained network as a folder that others run without Keras and this library: from images to answers.

Preprocessing and extractor are inside. The first target is TensorFlow Serving. ONNX and LiteRT are the others.
"""

import dataclasses
import json
import os
import pathlib
import shutil

import keras
import tensorflow as tf

from cdc_keras.choices import EXPORT_FORMATS, ZOO, record_name
from cdc_keras.data.load import load_dataset
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.export import litert, onnx, saved_model
from cdc_keras.paths import expanded
from cdc_keras.runs.environment import environment
from cdc_keras.runs.trained import load_trained

CLASSES, METADATA = "classes.txt", "metadata.json"
OTHERS = {"onnx": onnx, "litert": litert, "litert_int8": litert}  # formats beside the SavedModel
CALIBRATING = 200  # images


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        folder: `pathlib.Path` of its version, `<out>/<version>`.
        metadata: what stands in metadata.json: signatures, sizes and where the model comes from.
    """

    folder: pathlib.Path
    metadata: dict


@keras_defaults()
def export(model, out, *, version=None, format="saved_model", data_dir=None):  # noqa: A002
    """Writes `<out>/<version>/`, a SavedModel, ONNX files or a LiteRT file, and returns the `Exported` model.

    The signatures of a SavedModel, each for any number of images B of S px; S, K categories and the shape of T are the
    network's:

    * `serving_default`: images (B, S, S, 3) uint8 -> of a classifier probabilities (B, K), top_labels and top_scores
      (B, min(5, K)), of an extractor context (B, h, w, C).
    * `serve_bytes`: image_bytes (B,), each a JPEG or PNG of at most `image_bytes.PIXEL_LIMIT` pixels -> the same.
    * `explain`, of a classifier: images -> also focus (B, S, S) in [0, 1], where the features are strong at the end
      (`maps.focus_map` of `maps.last_features`), and of a gated one attention (B, h, w), M, and channel_weights_<site>
      (B, C), the C of Eq. 4 at each site.
    * `context`, of an extractor and of what is gated by one: images -> context, T.

    Of these, ONNX has one file each and LiteRT one file for all. Both are without `serve_bytes`, and give top_classes,
    numbers, for labels. "litert_int8" computes in 8 bits, and learns the ranges of the features from validation images.

    Args:
        model: path of a finished run, or "zoo:<name>".
        out: folder of the model, whose name TF Serving knows it by.
        version: whole number, above 0; by default the one after the newest in `out`.
        format: one of `choices.EXPORT_FORMATS`.
        data_dir: for "litert_int8", where the data are, if not where they were in training.

    Raises:
        UserError: there is no such network, the version exists, or it cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"the graph is TensorFlow's; set KERAS_BACKEND=tensorflow, not {keras.backend.backend()}")
    if format not in EXPORT_FORMATS:
        raise UserError(f"format is one of {', '.join(EXPORT_FORMATS)}, not {format!r}")
    if version is not None and version < 1:
        raise UserError(f"version is a whole number above 0, not {version}")
    trained, out = load_trained(model), expanded(out)
    more = {"images": _calibrating(trained, data_dir)} if format == "litert_int8" else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        version = version or 1 + max((int(path.name) for path in out.iterdir() if path.name.isdecimal()), default=0)
        folder, partial = out / str(version), out / f".{version}.partial"
        if folder.exists():
            raise UserError(f"{folder} exists; a version is not written again: leave --version out for the next one")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            metadata = _write(partial, out.resolve().name, model, trained, format, more)
            os.replace(partial, folder)  # TF Serving looks for numbers, and may look at any time
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, tf.errors.OpError) as error:  # TensorFlow writes the graph and has errors of its own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot write a model to {out}: {reason}; choose another folder") from error
    return Exported(folder, metadata)


def _calibrating(trained, data_dir):
    """Returns (N, S, S, 3) uint8 validation images of what a network was trained on; training images if it had none."""
    config = dataclasses.replace(trained.config, **({"data_dir": data_dir} if data_dir else {}))
    dataset = load_dataset(config)
    return (dataset.validation if len(dataset.validation) else dataset.train).sample(0, CALIBRATING).images


def _write(folder, name, model, trained, format, more):  # noqa: A002
    """Writes the version of the model `name` that computes what a `Trained` network does, and returns its metadata.

    `more` are arguments that the format takes beside.
    """
    classes = folder / CLASSES
    classes.write_text("".join(f"{' '.join(label.split())}\n" for label in trained.class_names), encoding="utf-8")
    if format in OTHERS:
        signatures = OTHERS[format].write(folder, trained, **more)
    else:
        signatures = saved_model.write(folder, name, trained, classes)
        classes.unlink()  # it is among the assets now
    record = record_name(model)
    metadata = {
        "model": f"{ZOO}{record}" if record else pathlib.Path(model).resolve().name,
        "record_sha256": trained.record_sha256,
        "weights_sha256": trained.sha256,
        "kind": trained.config.task,
        "network": trained.config.network if trained.config.task == "classifier" else trained.config.context,
        "image_size": trained.config.image_size,
        "classes": len(trained.class_names),
        "signatures": {key: _described(function) for key, function in signatures.items()},
        **({"not_converted": OTHERS[format].NOT_CONVERTED} if format in OTHERS else {}),
        **environment(),
    }
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return metadata


def _described(function):
    """Returns the inputs and outputs of a concrete function, {name: "dtype shape"}."""
    return {
        "inputs": {spec.name: _tensor(spec) for spec in function.structured_input_signature[0]},
        "outputs": {name: _tensor(spec) for name, spec in function.structured_outputs.items()},
    }


def _tensor(spec):
    return f"{spec.dtype.name} {tuple(spec.shape)}"
