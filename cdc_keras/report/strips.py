"""Strips of image files: what a classifier says of them and where it looks."""

import sys

import numpy as np

from cdc_keras.data.image_file import read_image
from cdc_keras.data.pipeline import scale
from cdc_keras.errors import UserError
from cdc_keras.gate.parts import gate_outputs
from cdc_keras.paths import expanded
from cdc_keras.runs.trained import load_trained
from cdc_keras.visualize import figures


def of_classifier(model, paths, path, *, count, plain=None, site=None):
    """Writes the strip of a trained classifier, with Grad-CAM; see `figures.strip`.

    Args:
        model: path of a finished run, or "zoo:<name>".
        paths: image files; those that cannot be read are named on stderr and left out.
        path: PNG to write.
        count: how many of the images are drawn at most.
        plain: the plain counterpart of a gated classifier, in the same way, or None.
        site: name of the gated layer to look into; the shallowest by default.

    Raises:
        UserError: one of the models is none, or no image can be read.
    """
    trained = load_trained(model, "classifier")
    counterpart = None if plain is None else load_trained(plain, "classifier", role="plain classifier")
    is_gated = bool(gate_outputs(trained.network))
    if counterpart is not None:
        ours, theirs = ((x.config.image_size, x.class_names) for x in (trained, counterpart))
        if not is_gated or gate_outputs(counterpart.network) or ours != theirs:
            raise UserError(
                "a plain classifier is drawn beside a gated one of the same images and categories; "
                f"{model} and {plain} are not such a pair"
            )
    if site is not None and not is_gated:
        raise UserError(f"{model} has no gate to look into; leave the site out")
    images = _read(paths, trained.config.image_size, count)
    predictions = np.asarray(trained.network(scale(images), training=False)).argmax(axis=1)
    networks = {"gated": None, "plain": trained.network}
    if is_gated:
        networks = {"gated": trained.network, "plain": counterpart and counterpart.network}
    try:
        figures.strip(
            images,
            path=path,
            site=site,
            count=len(images),
            labels=[trained.class_names[c] for c in predictions],
            grad_cam=True,
            **networks,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def of_saved_model(folder, paths, path, *, count):
    """Writes the strip of what an exported classifier explains: M, where it has one, and its focus.

    Args:
        folder: path of a version of the model.
        paths: image files; those that cannot be read are named on stderr and left out.
        path: PNG to write.
        count: how many of the images are drawn at most.

    Raises:
        UserError: it is no exported classifier, or no image can be read.
    """
    import tensorflow as tf

    folder = expanded(folder)
    if not (folder / "saved_model.pb").is_file():
        raise UserError(f"{folder} is no SavedModel; name a version, models/<name>/<version>")
    signatures = tf.saved_model.load(str(folder)).signatures
    if "explain" not in signatures:
        raise UserError(f"{folder} has no signature explain, as it is of no classifier; export one")
    (spec,) = signatures["explain"].structured_input_signature[1].values()
    images = _read(paths, spec.shape[1], count)
    seen = {key: value.numpy() for key, value in signatures["explain"](images=tf.constant(images)).items()}
    maps = {"focus": seen["focus"]}
    if "attention" in seen:
        factor = images.shape[1] // seen["attention"].shape[1]
        maps = {"M": seen["attention"].repeat(factor, axis=1).repeat(factor, axis=2)} | maps
    labels = [label.decode() for label in seen["top_labels"][:, 0]]
    figures.draw_strip(images, maps, path, title=folder.resolve().parent.name, labels=labels)


def _read(paths, size, count):
    """Returns the first `count` image files that can be read, (N, size, size, 3) uint8; names the others on stderr."""
    images, unread = [], 0
    for path in paths:
        if len(images) == count:
            break
        try:
            images.append(read_image(path, size))
        except Exception as error:  # PIL's decoders raise almost anything
            print(f"image left out: {path} ({error})", file=sys.stderr)
            unread += 1
    if not images:
        raise UserError(f"none of {unread} images can be read; name others")
    if unread:
        print(f"{unread} of {unread + len(images)} images are left out", file=sys.stderr)
    return np.stack(images)
