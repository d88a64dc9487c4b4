"""The pictures of a run: curves, reconstructions, swapped conditions, and strips of what a gate sees."""

import sys

import numpy as np

from cdc_keras.data.dataset import Split, StreamSplit
from cdc_keras.data.pipeline import scale
from cdc_keras.gate.parts import ATTENTION
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.visualize import figures

SHOWN = 8  # images in a picture


def draw_training(model, run, dataset, rows):
    """Writes the pictures that show how training goes; what keeps them from being written does not stop it.

    Args:
        model: the `Disentangler` or `Classifier`.
        run: a `RunFolder`.
        dataset: a `Dataset`.
        rows: the metrics of the epochs so far.
    """
    examples = examples_to_show(dataset.validation if len(dataset.validation) else dataset.train)
    try:
        figures.curves(rows, run.pictures / "curves.png")
        if isinstance(model, Disentangler):
            draw_extractor(model, examples, dataset.class_names, run)
        elif any(layer.name == ATTENTION for layer in model.network.layers):
            draw_strips(None, model.network, examples, run)
    except (OSError, ImportError) as error:  # a full disk, or a machine without matplotlib: training is worth more
        print(f"no pictures: {error}", file=sys.stderr)


def examples_to_show(split):
    """Returns a `Split` of a few examples, spread over the split: folders are stored class by class."""
    if isinstance(split, StreamSplit):
        images, labels = zip(*split.examples(0).take(SHOWN).as_numpy_iterator(), strict=True)
        return Split(np.stack(images), np.stack(labels))
    return split.take(np.linspace(0, len(split) - 1, min(SHOWN, len(split))).astype(int))


def draw_extractor(model, examples, class_names, run):
    """Writes the reconstructions of a `Split` and, where there is a condition, the same T under others."""
    figures.reconstructions(model, examples.images, examples.labels, run.pictures / "reconstructions.png")
    if model.conditional:
        path = run.pictures / "condition_swaps.png"
        images, labels = (x[: figures.SWAPPED] for x in (examples.images, examples.labels))
        context = model(scale(images), training=False)

        def decode(categories):
            return model.decode(context, model.condition(categories))

        figures.condition_swaps(decode, images, labels, class_names, path)


def draw_strips(plain, gated, examples, run):
    """Writes the strip of a `Split`, with the plain network or None; where masks are known, with what they tell."""
    figures.strip(examples.images, plain, gated, run.pictures / "strips.png", masks=examples.factors.get("mask"))
