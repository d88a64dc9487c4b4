"""Does augmentation help where photographs are few? python -m benchmarks.augmentation --data_dir=<TFDS folder>

A plain VGG-13 slim is trained on tf_flowers, 2,642 photographs of five kinds of flowers, at 64 px: flipped and not
cropped, with random resized crops, and after flip and crop with each of the three other augmentations, three seeds
each. It is scored on the 734 test images. The seed decides the weights, the order and the cut, so the runs of a seed
can be compared. Runs that are finished, or on record with the same settings, are not trained again. Writes
docs/results/augmentation.json, from which `python -m docs.fill` makes the table of docs/augmentation.md.
"""

import itertools
import json
import pathlib
import statistics
import sys

from absl import app, flags

from cdc_keras.config import RunConfig
from cdc_keras.data.load import load_dataset
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_trained
from cdc_keras.runs.training import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "augmentation.json"
SEEDS = (0, 1, 2)
DEFAULT = "crop and flip"
VARIANTS = {
    "flip": {"crop_padding": 0},
    DEFAULT: {},
    "randaugment": {"augmentation": "randaugment"},
    "cutmix": {"augmentation": "cutmix"},
    "mixup": {"augmentation": "mixup"},
    "random resized crop": {"crop_padding": 0, "crop_area": 0.25},
}
SETTINGS = {
    "task": "classifier",
    "network": "vgg13_slim",
    "dataset": "tf_flowers",
    "image_size": 64,
    "crop_padding": 8,
    "epochs": 30,
    "batch_size": 32,
    "learning_rate": 0.02,
    "precision": "auto",
}


def trained(variant, seed):
    """Returns what is published of one run, and its top-1 on the test split, of 1."""
    config = RunConfig(**SETTINGS | VARIANTS[variant], seed=seed, data_dir=flags.FLAGS.data_dir)
    run = train(config, pathlib.Path(flags.FLAGS.out) / f"{variant}_{seed}".replace(" ", "_"), pictures=False)
    if not run.finished:
        sys.exit(130)
    scores = score(load_trained(run.path).network, load_dataset(config).test, run.config()).check_finite()
    facts = {**run.published(), "last_epoch": run.rows()[-1]}
    return {"variant": variant, "seed": seed, "top1": scores.metrics["top1"], **facts}


def table(runs):
    """Returns a Markdown table: top-1 on the test split by augmentation, and the gains over the default by seed."""
    top1 = {(run["variant"], run["seed"]): run["top1"] for run in runs}
    seeds = sorted({seed for _, seed in top1})
    rows = []
    for variant in VARIANTS:
        scores = [top1[variant, seed] for seed in seeds]
        gains = [100 * (score - top1[DEFAULT, seed]) for score, seed in zip(scores, seeds, strict=True)]
        cells = [*(f"{score:.1%}" for score in scores), f"{statistics.mean(scores):.1%}"]
        spread = f"{min(gains):+.1f} to {max(gains):+.1f}"
        cells += ["", ""] if variant == DEFAULT else [f"{statistics.mean(gains):+.1f}", spread]
        rows.append([variant, *cells])
    head = ["augmentation", *(f"seed {seed}" for seed in seeds), "mean", "mean gain", "lowest to highest"]
    return markdown_table(head, rows)


def main(argv):
    del argv
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    runs = {(run["variant"], run["seed"]): run for run in runs}
    for seed, variant in itertools.product(SEEDS, VARIANTS):
        if (variant, seed) not in runs:
            runs[variant, seed] = trained(variant, seed)
            RESULTS.write_text(json.dumps([*runs.values()], indent=1) + "\n", encoding="utf-8")
    print(table(runs.values()))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "folder of TensorFlow Datasets that holds tf_flowers; its own if not given")
    flags.DEFINE_string("out", "runs/augmentation", "folder for the runs")
    app.run(main)
