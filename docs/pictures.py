"""Draws the glossary's picture and the animation of one T under ten categories: python -m docs.pictures

All from the zoo's extractor of `shapes` and scenes that the program draws.
"""

import pathlib

import keras
import numpy as np
from PIL import Image, ImageDraw

from cdc_keras.data.pipeline import scale
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.runs.trained import load, load_decoder

DOCS = pathlib.Path(__file__).resolve().parent
ENLARGED, GAP = 4, 2  # times; pixels before that
SEED = (2026, 1)


def as_pixels(images):
    """Returns (N, S, S, 3) uint8 of images in [-1, 1]."""
    return np.clip((np.asarray(images) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def as_grey(maps, size):
    """Returns (N, size, size, 3) uint8 of maps (N, h, w), each from black at its least to white at its most."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    grey = np.round(255 * (maps - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    return np.repeat(grey.repeat(size // maps.shape[1], 1).repeat(size // maps.shape[2], 2)[..., None], 3, 3)


def sheet(rows):
    """Returns a picture of rows of images (S, S, 3) uint8, enlarged, on white."""
    padding = ((GAP, GAP), (GAP, GAP), (0, 0))
    stacked = [np.concatenate([np.pad(x, padding, constant_values=255) for x in row], axis=1) for row in rows]
    picture = Image.fromarray(np.concatenate(stacked))
    return picture.resize((picture.width * ENLARGED, picture.height * ENLARGED), Image.Resampling.NEAREST)


def main():
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
