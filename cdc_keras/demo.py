"""The idea in a few minutes: cdc-keras demo --out=runs/demo (or make demo).

It shows what the zoo's extractor of `shapes` makes of T and V. Then it trains a small VGG on images whose backgrounds
give the category away: plain, gated from V, and, as a control, gated from the V of another image.
"""

import dataclasses
import json
import sys
import time

import numpy as np
from keras import ops

from cdc_keras.audit import scenes
from cdc_keras.config import RunConfig
from cdc_keras.data.pipeline import in_batches, scale
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.errors import UserError
from cdc_keras.gate.parts import ATTENTION
from cdc_keras.markdown import markdown_table
from cdc_keras.networks import graph
from cdc_keras.paths import expanded
from cdc_keras.runs.environment import environment
from cdc_keras.runs.evaluation import evaluate, measure
from cdc_keras.runs.trained import load, load_decoder
from cdc_keras.runs.training import train
from cdc_keras.visualize import figures
from cdc_keras.weights import make_folder, write_text

EXTRACTOR = "zoo:shapes"
PLAIN = RunConfig(
    task="classifier",
    network="vgg13_slim",
    dataset="shapes",
    background_bias=0.95,
    seed=1,  # the extractor has seen the images of seed 0
    train_limit=1000,
    validation_fraction=0.2,
    epochs=25,
    batch_size=64,
    learning_rate=0.02,
    warmup_epochs=0.0,
    steps_per_call=5,
)
FROM_V = {"gate_spread": True, "gate_init": "spread"}
ARMS = {
    "plain": {},
    "gated": FROM_V,
    "control": {**FROM_V, "gate_context": "shuffled"},
}
TITLES = {"plain": "plain", "gated": "gated", "control": "gated by another image's T and V"}
SCENES = 1000  # fresh ones, on which V and M are compared with the object
SHOWN = 6  # images in a picture


def demo(out, plain=PLAIN, extractor=EXTRACTOR):
    """Returns the demo's tables as Markdown text, having trained into `out` and drawn the pictures there.

    Args:
        out: folder for the runs and pictures; finished runs are not trained again.
        plain: config of the plain classifier.
        extractor: "zoo:<name>" or path of an extractor of `shapes`.
    """
    out, started = expanded(out), time.monotonic()
    make_folder(out)
    print(f"== what {extractor} holds", file=sys.stderr)
    fresh = shapes(SCENES, seed=(plain.seed, 1))
    maps = {"V": np.asarray(load(extractor, spread=True).predict(scale(fresh.images), verbose=0)[1])[..., 0]}
    _draw_swaps(extractor, fresh.take(slice(SHOWN)), out / "swaps.png")

    scores = {}
    for name, settings in ARMS.items():
        print(f"== {TITLES[name]}", file=sys.stderr)
        gate = {"extractor": extractor, **settings} if settings else {}
        if not train(dataclasses.replace(plain, **gate), out / name).finished:
            raise UserError("the demo was stopped; the same command goes on from there")
        scores[name] = {
            "validation": measure(out / name, split="validation").scores["top1"],
            "test": evaluate(out / name)["top1"],  # with pictures
        }
    maps["M"] = _attention(load(out / "gated"), fresh.images)
    overlap = {name: _overlap(values, fresh.factors["mask"]) for name, values in maps.items()}
    _draw(maps, fresh, out / "attention.png")

    text = _tables(scores, overlap)
    numbers = {"accuracy": scores, "iou": overlap, "extractor": extractor, "environment": environment()}
    write_text(out / "demo.json", json.dumps(numbers, indent=2) + "\n")
    write_text(out / "demo.md", text)
    minutes = (time.monotonic() - started) / 60
    pictures = [out / "swaps.png", out / "attention.png", *sorted(out.glob("*/pictures/*.png"))]
    return text + f"\n{minutes:.1f} min. Pictures:\n" + "\n".join(f"  {path}" for path in pictures)


def _attention(network, images):
    """Returns M of images, (N, h, w)."""
    tapped = graph.activations(network, [ATTENTION])
    return in_batches(lambda x: tapped(scale(x), training=False)[ATTENTION], images)[..., 0]


def _overlap(values, masks):
    """Returns the mean IoU of maps (N, h, w) with masks (N, S, S), and that of another image's maps."""
    own, another = scenes.overlaps(values, masks)
    return {"own": float(own.mean()), "another": float(another.mean())}


def _draw_swaps(extractor, split, path):
    """Writes the images, and their T decoded under every category."""
    context, decoder = load(extractor)(scale(split.images)), load_decoder(extractor)
    count = decoder.inputs[1].shape[-1]

    def decode(categories):
        return decoder([context, ops.one_hot(categories, count)], training=False)

    figures.condition_swaps(decode, split.images, split.labels, CLASS_NAMES, path, conditions=count)


def _draw(maps, split, path):
    """Writes the images with V and M over them."""
    count, size = SHOWN, split.images.shape[1]
    shown = {}
    for name, values in maps.items():
        values = values[:count] / values[:count].max(axis=(1, 2), keepdims=True)
        factor = size // values.shape[1]
        shown[f"{name} over the image"] = values.repeat(factor, axis=1).repeat(factor, axis=2)
    figures.draw_strip(split.images[:count], shown, path, title="V and M", masks=split.factors["mask"][:count])


def _tables(scores, overlap):
    """Returns the results as Markdown tables."""
    splits = {"backgrounds as in training": "validation", "backgrounds independent of the category": "test"}
    rows = [(text, *(f"{scores[name][split]:.1%}" for name in ARMS)) for text, split in splits.items()]
    accuracies = markdown_table(("accuracy of the classifier on", *TITLES.values()), rows)
    rows = [(name, *(f"{of[key]:.2f}" for key in ("own", "another"))) for name, of in overlap.items()]
    overlaps = markdown_table(("IoU with the object", "of the image's own", "of another image's"), rows)
    return f"{accuracies}\n\n{overlaps}\n"
