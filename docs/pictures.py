"""Draws the glossary's picture and those of one T under every category: python -m docs.pictures [--data_dir=...]

From the zoo's extractor of `shapes` and scenes that the program draws. With the folder of TensorFlow Datasets, the
picture of photographs is drawn as well, from the zoo's `tf_flowers_counterfactual`.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np
from PIL import Image, ImageDraw

from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import scale
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.runs.trained import load, load_decoder
from cdc_keras.zoo import info

DOCS = pathlib.Path(__file__).resolve().parent
ENLARGED, GAP = 4, 2  # times; pixels before that
SEED = (2026, 1)
FLOWERS = "tf_flowers_counterfactual"
MARGIN, FRAME = 20, 4  # pixels: of the names above, and of the frame of an image's own category


def as_pixels(images):
    """Returns (N, S, S, 3) uint8 of images in [-1, 1]."""
    return np.clip((np.asarray(images) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def as_grey(maps, size):
    """Returns (N, size, size, 3) uint8 of maps (N, h, w), each from black at its least to white at its most."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    grey = np.round(255 * (maps - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    return np.repeat(grey.repeat(size // maps.shape[1], 1).repeat(size // maps.shape[2], 2)[..., None], 3, 3)


def sheet(rows, enlarged=ENLARGED):
    """Returns a picture of rows of images (S, S, 3) uint8, enlarged, on white."""
    padding = ((GAP, GAP), (GAP, GAP), (0, 0))
    stacked = [np.concatenate([np.pad(x, padding, constant_values=255) for x in row], axis=1) for row in rows]
    picture = Image.fromarray(np.concatenate(stacked))
    return picture.resize((picture.width * enlarged, picture.height * enlarged), Image.Resampling.NEAREST)


def flowers(data_dir):
    """Draws T of the first test image of each category of tf_flowers, decoded under every category."""
    keras.utils.set_random_seed(0)  # of the noise in T
    extractor, decoder = load(f"zoo:{FLOWERS}"), load_decoder(f"zoo:{FLOWERS}")
    dataset = load_dataset(dataclasses.replace(info(FLOWERS).run_config(), data_dir=data_dir))
    labels, count = dataset.test.labels, len(dataset.class_names)
    chosen = [int(np.flatnonzero(labels == category)[0]) for category in range(count)]
    context = extractor.predict(scale(dataset.test.images[chosen]), verbose=0)
    rows = []
    for own in range(count):
        under = as_pixels(decoder([np.repeat(context[[own]], count, 0), np.eye(count, dtype=np.float32)]))
        for edge in (np.s_[:FRAME], np.s_[-FRAME:], np.s_[:, :FRAME], np.s_[:, -FRAME:]):
            under[own][edge] = (220, 0, 0)
        rows.append(under)
    images = sheet(rows, enlarged=1)
    picture = Image.new("RGB", (images.width, images.height + MARGIN), "white")
    picture.paste(images, (0, MARGIN))
    for column, name in enumerate(dataset.class_names):
        ImageDraw.Draw(picture).text((column * images.width // count + 2 * FRAME, FRAME), name, "black")
    picture.save(DOCS / "flowers.jpg", quality=88)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="folder of TensorFlow Datasets, which has tf_flowers")
    if (data_dir := parser.parse_args().data_dir) is not None:
        flowers(data_dir)
    keras.utils.set_random_seed(0)  # of the noise in T
    decoder, split = load_decoder("zoo:shapes"), shapes(40, seed=SEED)
    context, spread = (np.asarray(x) for x in load("zoo:shapes", spread=True).predict(scale(split.images), verbose=0))

    def decoded(rows, category):
        condition = np.eye(len(CLASS_NAMES), dtype=np.float32)[[category] * len(rows)]
        return as_pixels(decoder([context[rows], condition], training=False))

    chosen = [int(np.flatnonzero(split.labels == CLASS_NAMES.index(name))[0]) for name in ("star", "ring", "arrow")]
    v = as_grey(spread[..., 0], 32)
    mean = as_grey(context.mean(-1), 32)
    rows = []
    for i in chosen:
        label = int(split.labels[i])
        other = (label + 1) % len(CLASS_NAMES)
        mask = np.repeat(split.factors["mask"][i][..., None].astype(np.uint8) * 255, 3, 2)
        rows.append((split.images[i], mean[i], decoded([i], label)[0], decoded([i], other)[0], v[i], mask))
    sheet(rows).save(DOCS / "glossary.png", optimize=True)

    frames = []
    for category, name in enumerate(CLASS_NAMES):
        again = decoded(chosen, category)
        picture = sheet([[split.images[i] for i in chosen], again])
        frame = Image.new("RGB", (picture.width, picture.height + 24), "white")
        frame.paste(picture)
        ImageDraw.Draw(frame).text(
            (10, picture.height + 4), f"above: the image; below: its T decoded as {name}", "black"
        )
        frames.append(frame.quantize(128))
    frames[0].save(DOCS / "swaps.gif", save_all=True, append_images=frames[1:], duration=900, loop=0)


if __name__ == "__main__":
    main()
