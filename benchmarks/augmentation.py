"""Does augmentation help on a small set of photographs? python -m benchmarks.augmentation --data_dir=...

A plain VGG-13 slim is trained from scratch on 2,642 photographs of `tf_flowers` at 64 px: with mirroring alone, with
the default of this project (crop and mirror), with each augmentation of KerasCV on top, and with random resized crops.
It is scored on the 734 test images. The seed decides the weights, the order and the validation images, so that the runs
of a seed can be compared. Runs that are finished, or on record with the same settings, are not trained again. Writes
docs/results/augmentation.json, from which `python -m docs.fill` makes the table of docs/augmentation.md.
"""

import itertools
import json
import pathlib

from absl import app, flags

from benchmarks.gate_pays import spread
from benchmarks.runs import trained
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.evaluation import measure
from cdc_keras.tables.statistics import paired, summary

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "augmentation.json"
SEEDS = (0, 1, 2)
SETTINGS = {
    "task": "classifier",
    "network": "vgg13_slim",
    "dataset": "tf_flowers",
    "image_size": 64,
    "epochs": 24,
    "batch_size": 32,
    "learning_rate": 0.02,
    "precision": "auto",
    "steps_per_call": 20,
}
DEFAULT = "crop and mirror, the default"
VARIANTS = {
    "mirror alone": {"crop_padding": 0},
    DEFAULT: {},
    "randaugment": {"augmentation": "randaugment"},
    "cutmix": {"augmentation": "cutmix"},
    "mixup": {"augmentation": "mixup"},
    "random resized crops": {"crop_area": 0.25},
}


def measured(variant, seed):
    """Returns what is published of one run, with its top-1 on the test split, of 1."""
    config = RunConfig(seed=seed, data_dir=flags.FLAGS.data_dir, **SETTINGS, **VARIANTS[variant])
    run = trained(config, pathlib.Path(flags.FLAGS.out) / f"{variant} {seed}".replace(" ", "_"))
    top1 = measure(str(run.path)).scores["top1"]
    return {"variant": variant, "seed": seed, "top1": top1, "last": run.rows()[-1], **run.published()}


def table(runs):
    """Returns the runs as Markdown: the top-1 of each variant, what it gains over the default, and how well it fits."""
    test, fitted = (lambda run: run["top1"]), (lambda run: run["last"]["top1"])
    rows = []
    for variant in VARIANTS:
        scores = _of(runs, variant, test)
        gain = "" if variant == DEFAULT else spread(paired(scores, _of(runs, DEFAULT, test)), "+")
        fits = _of(runs, variant, fitted)
        rows.append([variant, spread(summary(scores.values())), gain, spread(summary(fits.values()))])
    head = ["training images", "test top-1, %", "minus the default", "training top-1, last epoch, %"]
    of = {key: ", ".join(sorted({str(run[key]) for run in runs})) for key in ("seed", "hardware", "commit")}
    (precision,) = {run["settings"]["precision"] for run in runs}
    note = f"Means over seeds {of['seed']}, and half of their 95% intervals; differences are paired by seed. "
    note += f"{SETTINGS['epochs']} epochs in {precision}. {of['hardware']}; commit {of['commit']}."
    return f"{markdown_table(head, rows)}\n\n{note}"


def _of(runs, variant, value):
    return {run["seed"]: value(run) for run in runs if run["variant"] == variant}


def main(argv):
    del argv
    quiet_libraries()
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    asked = {name: value for name, value in SETTINGS.items() if name != "precision"}
    runs = {(run["variant"], run["seed"]): run for run in runs if asked.items() <= run["settings"].items()}
    for seed, variant in itertools.product(SEEDS, VARIANTS):
        runs[variant, seed] = runs.get((variant, seed)) or measured(variant, seed)
        RESULTS.write_text(json.dumps([*runs.values()], indent=1) + "\n", encoding="utf-8")
    print(table([*runs.values()]))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "folder of TensorFlow Datasets; if not given, its own")
    flags.DEFINE_string("out", "runs/augmentation", "folder for the runs")
    app.run(main)
