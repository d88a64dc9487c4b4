"""Does augmentation help where images are few? python -m benchmarks.augmentation

A plain VGG-13 slim is trained on 500 images of `shapes` whose background gives the category away four times in five,
cropped and flipped as always, without further augmentation and with each of the three, three seeds each. It is scored
on 2,000 test images, in which the background says nothing. The seed decides the weights, the order and the images, so
the four runs of a seed can be compared. Runs that are finished, or on record with the same settings, are not trained
again. Writes docs/results/augmentation.json, from which `python -m docs.fill` makes the table of docs/augmentation.md.
"""

import itertools
import json
import pathlib
import statistics
import sys

from absl import app, flags

from cdc_keras.choices import AUGMENTATIONS
from cdc_keras.config import RunConfig
from cdc_keras.data.load import load_dataset
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_trained
from cdc_keras.runs.training import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "augmentation.json"
SEEDS = (0, 1, 2)
SETTINGS = {
    "task": "classifier",
    "network": "vgg13_slim",
    "dataset": "shapes",
    "background_bias": 0.8,
    "train_limit": 500,
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.02,
    "steps_per_call": 15,
}


def trained(augmentation, seed):
    """Returns what is published of one run, and its top-1 on the test split, of 1."""
    config = RunConfig(augmentation=augmentation, seed=seed, **SETTINGS)
    run = train(config, pathlib.Path(flags.FLAGS.out) / f"{augmentation}_{seed}", pictures=False)
    if not run.finished:
        sys.exit(130)
    scores = score(load_trained(run.path).network, load_dataset(config).test, run.config()).check_finite()
    facts = {**run.published(), "last_epoch": run.rows()[-1]}
    return {"augmentation": augmentation, "seed": seed, "top1": scores.metrics["top1"], **facts}


def table(runs):
    """Returns a Markdown table: top-1 on the test split by augmentation, and the gains over none, seed by seed."""
    top1 = {(run["augmentation"], run["seed"]): run["top1"] for run in runs}
    seeds = sorted({seed for _, seed in top1})
    rows = []
    for augmentation in AUGMENTATIONS:
        scores = [top1[augmentation, seed] for seed in seeds]
        gains = [100 * (score - top1["none", seed]) for score, seed in zip(scores, seeds, strict=True)]
        cells = [*(f"{score:.1%}" for score in scores), f"{statistics.mean(scores):.1%}"]
        spread = f"{min(gains):+.1f} to {max(gains):+.1f}"
        cells += ["", ""] if augmentation == "none" else [f"{statistics.mean(gains):+.1f}", spread]
        rows.append([augmentation, *cells])
    head = ["augmentation", *(f"seed {seed}" for seed in seeds), "mean", "mean gain", "lowest to highest"]
    return markdown_table(head, rows)


def main(argv):
    del argv
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    runs = {(run["augmentation"], run["seed"]): run for run in runs if SETTINGS.items() <= run["settings"].items()}
    for seed, augmentation in itertools.product(SEEDS, AUGMENTATIONS):
        runs[augmentation, seed] = runs.get((augmentation, seed)) or trained(augmentation, seed)
        RESULTS.write_text(json.dumps([*runs.values()], indent=1) + "\n", encoding="utf-8")
    print(table(runs.values()))


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/augmentation", "folder for the runs")
    app.run(main)
