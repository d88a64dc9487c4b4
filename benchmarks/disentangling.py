"""What makes T free of the category? python benchmarks/disentangling.py --dataset=cifar100 --data_dir=...

Short runs of the extractor that differ from one another in one thing, trained by train.py and then read by fresh probes
on validation images: trained on one half, scored on the other. A narrower T holds less of everything, so every run is
set beside context models without a discriminator (CGM) of several widths: what counts is how much less the probes read
than from a CGM of the same reconstruction error. Runs that are finished are not trained again. Writes
docs/results/disentangling.json, and from it the page docs/disentangling.md with its figure.
"""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cdc_keras import data  # noqa: E402
from cdc_keras.audit import decoding, drawn  # noqa: E402
from cdc_keras.audit.bootstrap import interval  # noqa: E402
from cdc_keras.audit.probes import PROBES, probe  # noqa: E402
from cdc_keras.data.split import stratified_cut  # noqa: E402
from cdc_keras.progress import quiet_libraries  # noqa: E402
from cdc_keras.runs import RunFolder  # noqa: E402
from cdc_keras.sources import load_model  # noqa: E402
from cdc_keras.zoo.record import PATHS  # noqa: E402

DATASET = flags.DEFINE_enum("dataset", "shapes", ["shapes", "cifar100"], "what to study on")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS has prepared cifar100")
OUT = flags.DEFINE_string("out", "runs/disentangling", "folder for the runs")
RESULTS = ROOT / "docs" / "results" / "disentangling.json"
PROBED = 10_000  # validation images, half of them for the probes to learn from

COMMON = {
    "shapes": {"train_limit": 10_000, "validation_fraction": 0.99, "epochs": 8},
    "cifar100": {"train_limit": 20_000, "validation_fraction": 0.2, "epochs": 5},
}
SHARED = {"batch_size": 64, "precision": "mixed_bfloat16", "fool_ramp_fraction": 0.53}
STRONG = {"fool_weight": 0.1}  # where D has a say at all; what follows differs from it
FRESH = {"discriminators": 4, "discriminator_reset_epochs": 1}
RUNS = {
    "CGM, T 64": {"context": "cgm"},
    "CGM, T 16": {"context": "cgm", "context_channels": 16},
    "CGM, T 4": {"context": "cgm", "context_channels": 4},
    "GM": {"context": "gm"},
    "lambda 1e-4 (paper)": {},
    "lambda 1e-2": {"fool_weight": 1e-2},
    "lambda 0.1": STRONG,
    "lambda 1": {"fool_weight": 1.0},
    "no ramp": STRONG | {"fool_ramp_fraction": 0.0},
    "D 128 wide": STRONG | {"discriminator_width": 128},
    "4 steps of D": STRONG | {"discriminator_steps": 4},
    "D anew every epoch": STRONG | {"discriminator_reset_epochs": 1},
    "4 Ds": STRONG | {"discriminators": 4},
    "4 Ds, one anew every epoch": STRONG | FRESH,
    "4 Ds, one anew, 2 steps": STRONG | FRESH | {"discriminator_steps": 2},
    "wrong_class_ce": STRONG | {"fool_loss": "wrong_class_ce"},
    "uniform_ce": STRONG | {"fool_loss": "uniform_ce"},
    "T 16": STRONG | {"context_channels": 16},
    "no skip": STRONG | {"skip": "none"},
}
SHAPES_ALONE = ("no ramp", "D 128 wide", "D anew every epoch", "wrong_class_ce", "T 16")


def main(argv):
    del argv
    quiet_libraries()
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for name, changes in RUNS.items():
        known = [r for r in records if (r["dataset"], r["name"]) == (DATASET.value, name)]
        if known or (DATASET.value == "cifar100" and name in SHAPES_ALONE):
            continue
        folder = pathlib.Path(OUT.value) / DATASET.value / re.sub(r"\W+", "_", name)
        train(folder, COMMON[DATASET.value] | SHARED | changes)
        records.append({"dataset": DATASET.value, "name": name, "changes": changes, **measured(RunFolder(folder))})
        print(json.dumps({k: v for k, v in records[-1].items() if k in ("name", "mse", "readings", "D")}), flush=True)
        RESULTS.write_text(json.dumps(records, indent=1) + "\n")


def train(folder, settings):
    """Trains a run by train.py, which goes on with one that was stopped."""
    asked = {"task": "extractor", "dataset": DATASET.value, "run_dir": folder, **settings}
    if DATA_DIR.value is not None:
        asked["data_dir"] = DATA_DIR.value
    command = [sys.executable, ROOT / "train.py", *(f"--{k}={v}" for k, v in asked.items())]
    if code := subprocess.run(command).returncode:
        sys.exit(code)


def measured(run):
    """Returns what probes, D and decoder make of T on validation images, and how the run was trained."""
    model, config, about = load_model(run), run.config(), run.read_record()
    dataset = data.load(config)
    images = drawn(dataset.validation, PROBED, 0)
    classes = len(dataset.class_names)
    learned, scored = (images.take(rows) for rows in stratified_cut(images.labels, len(images) // 2, 0))
    contexts = [decoding.contexts(model.encoder, half.images) for half in (learned, scored)]
    readings = {}
    for kind in PROBES:
        found = probe(contexts[0], learned.labels, contexts[1], kind=kind, num_classes=classes, seed=0)
        readings[kind] = share(found == scored.labels)
    if model.adversarial:
        readings["discriminator"] = share(decoding.discriminated(model, contexts[1]) == scored.labels)
    errors = decoding.reconstruction_errors(model, scored.images, contexts[1], scored.labels)
    return {
        "mse": float(np.mean(errors)),
        "readings": readings,
        "settings": {k: v for k, v in dataclasses.asdict(config).items() if k not in PATHS},
        **{k: about[k] for k in ("versions", "hardware", "commit", "started", "train_images", "hours")},
    }


def share(right):
    low, high = interval(right, 0)
    return {"accuracy": float(np.mean(right)), "low": low, "high": high}


if __name__ == "__main__":
    app.run(main)
