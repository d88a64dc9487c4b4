"""What makes T free of the category? python -m benchmarks.disentangling --dataset=cifar100 --data_dir=...

Short runs of the extractor that differ from one another in one thing, trained by cdc-keras and read by fresh probes
on validation images: trained on one half, scored on the other. A narrower T holds less of everything, so every run is
set beside context models without a discriminator (CGM) of several widths: what counts is how much less the probes read
than from a CGM of the same reconstruction error. Runs that are finished are not trained again. Writes
docs/results/disentangling.json and docs/disentangling_<dataset>.png; docs/fill.py fills docs/disentangling.md.
"""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
from absl import app, flags

from cdc_keras.audit import decoding
from cdc_keras.audit.audit import halves
from cdc_keras.audit.bootstrap import interval
from cdc_keras.audit.probes import PROBES, probe
from cdc_keras.cli import quiet_libraries
from cdc_keras.data.load import load_dataset
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load_trainer
from cdc_keras.visualize.figures import new_figure, save_figure

DATASET = flags.DEFINE_enum("dataset", "shapes", ["shapes", "cifar100"], "what to study on")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS has prepared cifar100")
OUT = flags.DEFINE_string("out", "runs/disentangling", "folder for the runs")
ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "disentangling.json"
PROBED = 10_000  # validation images, half of them for the probes to learn from

COMMON = {
    "shapes": {"train_limit": 10_000, "validation_fraction": 0.99, "epochs": 8},
    "cifar100": {"train_limit": 20_000, "validation_fraction": 0.2, "epochs": 5},
}
SHARED = {"batch_size": 64, "precision": "mixed_bfloat16", "fool_ramp_fraction": 0.53}
STRONG = {"fool_weight": 0.1}  # where D has a say at all; what follows differs from it
FRESH = {"discriminators": 4, "discriminator_reset_epochs": 1}
UNIFORM = {"fool_loss": "uniform_ce"}
RUNS = {
    "CGM, T 64": {"context": "cgm"},
    "CGM, T 16": {"context": "cgm", "context_channels": 16},
    "CGM, T 4": {"context": "cgm", "context_channels": 4},
    "GM": {"context": "gm"},
    "lambda 1e-4 (paper)": {},
    "lambda 0.1": STRONG,
    "4 Ds, one anew every epoch": STRONG | FRESH,
    "uniform_ce": STRONG | UNIFORM,
}
MORE = {
    "shapes": {
        "lambda 1e-2": {"fool_weight": 1e-2},
        "lambda 1": {"fool_weight": 1.0},
        "no ramp": STRONG | {"fool_ramp_fraction": 0.0},
        "D 128 wide": STRONG | {"discriminator_width": 128},
        "4 steps of D": STRONG | {"discriminator_steps": 4},
        "D anew every epoch": STRONG | {"discriminator_reset_epochs": 1},
        "wrong_class_ce": STRONG | {"fool_loss": "wrong_class_ce"},
        "4 Ds, one anew every epoch, uniform_ce": STRONG | FRESH | UNIFORM,
        "T 16": STRONG | {"context_channels": 16},
        "no skip": STRONG | {"skip": "none"},
    },
    "cifar100": {"4 Ds, one anew every epoch, uniform_ce, lambda 1e-2": {"fool_weight": 1e-2} | FRESH | UNIFORM},
}


def main(argv):
    del argv
    quiet_libraries()
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    known = {(r["dataset"], r["name"]) for r in records}
    for name, changes in (RUNS | MORE[DATASET.value]).items():
        if (DATASET.value, name) in known:
            continue
        folder = pathlib.Path(OUT.value) / DATASET.value / re.sub(r"\W+", "_", name)
        train(folder, COMMON[DATASET.value] | SHARED | changes)
        records.append({"dataset": DATASET.value, "name": name, "changes": changes, **measured(RunFolder(folder))})
        print(json.dumps({k: v for k, v in records[-1].items() if k in ("name", "mse", "findings")}), flush=True)
        RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    draw([r for r in records if r["dataset"] == DATASET.value], ROOT / "docs" / f"disentangling_{DATASET.value}.png")


def train(folder, settings):
    """Trains a run by cdc-keras train, which goes on with one that was stopped."""
    asked = {"task": "extractor", "dataset": DATASET.value, "run_dir": folder, **settings}
    if DATA_DIR.value is not None:
        asked["data_dir"] = DATA_DIR.value
    command = [sys.executable, "-m", "cdc_keras", "train", *(f"--{k}={v}" for k, v in asked.items())]
    if code := subprocess.run(command).returncode:
        sys.exit(code)


def measured(run):
    """Returns what probes, D and decoder make of T on validation images, and how the run was trained."""
    model, dataset = load_trainer(run), load_dataset(run.config())
    classes = len(dataset.class_names)
    learned, scored = halves(dataset, PROBED, 0, "validation")
    contexts = [decoding.contexts(model.encoder, half.images) for half in (learned, scored)]
    findings = {}
    for kind in PROBES:
        found = probe(contexts[0], learned.labels, contexts[1], kind=kind, num_classes=classes, seed=0)
        findings[kind] = share(found == scored.labels)
    if model.adversarial:
        findings["discriminator"] = share(decoding.discriminated(model, contexts[1]) == scored.labels)
    errors = decoding.reconstruction_errors(model, scored.images, contexts[1], scored.labels)
    return {
        "mse": float(np.mean(errors)),
        "findings": findings,
        **run.published(),
    }


def strongest(record):
    """Returns the accuracy of the fresh probe that reads most."""
    return max(record["findings"][kind]["accuracy"] for kind in PROBES)


def frontier(records):
    """Returns (MSE, accuracy of the strongest probe) of the CGMs of several widths, arrays in order of the MSE."""
    points = sorted((r["mse"], strongest(r)) for r in records if r["name"].startswith("CGM"))
    return np.array(points).T


def of_equal_mse(records, mse):
    """Returns what the strongest probe reads from a CGM of an MSE, interpolated over its logarithm."""
    errors, accuracies = frontier(records)
    return float(np.interp(np.log(mse), np.log(errors), accuracies))


def table(records):
    """Returns the runs of a data set as lines of Markdown, and what they were run on."""
    rows = []
    for record in records:
        findings = record["findings"]
        cells = [f"{findings[x]['accuracy']:.1%}" if x in findings else "" for x in ("discriminator", *PROBES)]
        less = f"{100 * (strongest(record) - of_equal_mse(records, record['mse'])):+.1f}"
        if record["name"].startswith("CGM"):
            less = ""
        rows.append((record["name"], f"{record['mse']:.4f}", *cells, less))
    settings, last = records[0]["settings"], records[-1]
    commits = ", ".join(sorted({r["commit"] for r in records}))
    hours = sum(r["hours"] for r in records)
    head = ("run", "MSE", "its own D", "linear", "k-NN", "MLP", "conv")
    table = markdown_table((*head, "strongest probe, less that on a CGM of equal MSE"), rows)
    return (
        f"{table}\n\n"
        f"{last['train_images']} training images, {settings['epochs']} epochs of batch {settings['batch_size']}, "
        f"{settings['precision']}, seed {settings['seed']}; {last['hardware']}, {hours:.1f} h of training in all, "
        f"beside other work; commit {commits}."
    )


def draw(records, path):
    """Writes the figure: the strongest probe's accuracy over the reconstruction error, and the CGMs' line."""
    figure = new_figure(11, 5.5)
    ax = figure.subplots()
    errors, accuracies = frontier(records)
    ax.plot(errors, 100 * accuracies, color="gray", label="no discriminator, T 64, 16 and 4 wide")
    for i, record in enumerate(records, 1):
        point = record["mse"], 100 * strongest(record)
        mark = "s" if record["name"].startswith(("CGM", "GM")) else "o"
        ax.plot(*point, mark, color=f"C{i % 10}", label=f"{i}  {record['name']}")
        ax.annotate(str(i), point, xytext=(4, 3), textcoords="offset points", fontsize=9)
    ax.set_xscale("log")
    ax.set_xlabel("reconstruction MSE on validation images in [-1, 1]")
    ax.set_ylabel("category read from T by the strongest fresh probe, %")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    save_figure(figure, path)


def share(right):
    low, high = interval(right, 0)
    return {"accuracy": float(np.mean(right)), "low": low, "high": high}


if __name__ == "__main__":
    app.run(main)
