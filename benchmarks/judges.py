"""Can the judge of decoded images be trusted? python -m benchmarks.judges

What is decoded under another category should look like that category. A classifier that no player knew says so, the
judge. One that has only seen sharp images may fail on what is a little blurred, whatever it shows. So two kinds of
judges say what they see in images of `shapes`, in the same images blurred, and in what an extractor's decoder paints:
those that learned from sharp images, and those whose images were blurred and noisy, each by another amount. Writes
docs/results/judges.json; docs/fill.py makes the table.
"""

import dataclasses
import json
import pathlib
import tempfile

import numpy as np
from absl import app, flags
from scipy import ndimage

from benchmarks.runs import trained
from cdc_keras.audit import decoding
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.data.load import load_dataset
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment
from cdc_keras.runs.trained import load, load_disentangler
from cdc_keras.tables.statistics import summary

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "judges.json"
JUDGE = RunConfig(
    task="classifier",
    network="vgg13_slim",
    train_limit=40_000,
    epochs=4,
    batch_size=64,
    learning_rate=0.05,
    warmup_epochs=0.5,
    steps_per_call=10,
)
SHARP, SOFTENED = "sharp images", "blurred and noisy ones"
DECODED = "reconstructions", "decoded under y', seen as y'", "decoded under y', seen as its own"
BLUR, NOISE = 1.2, 0.1  # at most: deviation of the blur, pixels, and of the noise, images from 0 to 1
BLURRED = 1.0  # deviation of the blur that both are tried on, pixels
SCENES = 2000
SEED = 9  # of the scenes that are judged, and of the categories they are decoded under


def softened(images, seed, blur=BLUR, noise=NOISE):
    """Returns (N, H, W, 3) uint8 images, each with a Gaussian blur and noise of deviations drawn from 0 to a most."""
    rng = np.random.default_rng(seed)
    result = np.empty_like(images)
    for i, (sigma, deviation) in enumerate(rng.uniform(0, (blur, noise), (len(images), 2))):
        blurred = ndimage.gaussian_filter(images[i] / 255.0, (sigma, sigma, 0), mode="nearest")
        result[i] = np.clip(255 * (blurred + deviation * rng.normal(size=blurred.shape)) + 0.5, 0, 255)
    return result


def judge(kind, seed, folder):
    """Returns the `RunFolder` of a judge, which it trains below a folder."""
    config = dataclasses.replace(JUDGE, seed=seed)
    if kind == SOFTENED:
        data = load_dataset(config)
        arrays = {"class_names": np.array(CLASS_NAMES)}
        for i, (part, split) in enumerate((("train", data.train), ("test", data.test))):
            arrays |= {f"x_{part}": softened(split.images, (seed, i)), f"y_{part}": split.labels}
        np.savez(pathlib.Path(folder, f"softened_{seed}.npz"), **arrays)
        config = dataclasses.replace(config, dataset=f"softened_{seed}", data_dir=str(folder), train_limit=None)
    return trained(config, pathlib.Path(folder, f"judge of {kind} {seed}".replace(" ", "_")))


def seen(classifier, disentangler, scenes=SCENES):
    """Returns {what: share} of images that a judge sees as a category.

    Args:
        classifier: a judge, a functional model, images in [-1, 1] -> logits.
        disentangler: a trained `Disentangler`.
        scenes: how many are judged.
    """
    split = shapes(scenes, seed=SEED)
    context, labels = decoding.contexts(disentangler.encoder, split.images), split.labels
    others = decoding.other_labels(labels, len(CLASS_NAMES), SEED)
    blurred = ndimage.gaussian_filter(split.images, (0, BLURRED, BLURRED, 0), mode="nearest")
    square = labels == CLASS_NAMES.index("square")
    of_blurred = decoding.classified(classifier, blurred) == labels
    swapped = decoding.classified_decoded(classifier, disentangler, context, others)
    reconstructed = decoding.classified_decoded(classifier, disentangler, context, labels)
    found = {
        "images, as they are": decoding.classified(classifier, split.images) == labels,
        f"images blurred by {BLURRED:g} pixel": of_blurred,
        "of these, squares": of_blurred[square],
    } | dict(zip(DECODED, (reconstructed == labels, swapped == others, swapped == labels), strict=True))
    return {what: float(np.mean(hits)) for what, hits in found.items()}


def table(record):
    """Returns what the judges see as Markdown, means over their seeds."""
    kinds = list(dict.fromkeys(x["kind"] for x in record["judges"]))
    columns = {kind: [x["seen"] for x in record["judges"] if x["kind"] == kind] for kind in kinds}
    rows = []
    for what in columns[kinds[0]][0]:
        found = [summary(x[what] for x in columns[kind]) for kind in kinds]
        halves = ["" if x.interval is None else f" ± {100 * x.interval:.1f}" for x in found]
        rows.append((what, *(f"{100 * x.mean:.1f}{half}%" for x, half in zip(found, halves, strict=True))))
    about = record["environment"]
    seeds = ", ".join(str(x["seed"]) for x in record["judges"] if x["kind"] == kinds[0])
    return (
        f"{markdown_table(['what is judged', *(f'judges of {kind}' for kind in kinds)], rows)}\n\n"
        f"Means over judges of seeds {seeds}, with half of their 95% intervals. The extractor is "
        f"{record['extractor']}, the images are {record['scenes']} fresh ones. {about['hardware']}; commit "
        f"{about['commit']}."
    )


def main(argv):
    del argv
    quiet_libraries()
    disentangler, judges = load_disentangler(flags.FLAGS.extractor), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, flags.FLAGS.seeds + 1):  # the extractor's is 0
            for kind in (SHARP, SOFTENED):
                found = seen(load(judge(kind, seed, folder).path), disentangler)
                judges.append({"kind": kind, "seed": seed, "seen": found})
                print(judges[-1], flush=True)
    record = {"extractor": flags.FLAGS.extractor, "scenes": SCENES, "judges": judges, "environment": environment()}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("extractor", "zoo:shapes", "trained extractor of `shapes`: runs/... or zoo:<name>")
    flags.DEFINE_integer("seeds", 3, "judges of each kind", lower_bound=1)
    app.run(main)
