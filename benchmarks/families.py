"""Short real training runs, one per family of networks and baseline: python -m benchmarks.families --data_dir=...

Each trains on 4,000 images of CIFAR-100 for a few epochs. Nothing is claimed from the accuracies; what is shown is that
every network learns: the loss of the last epoch is below that of the first. Writes docs/results/families.json and the
table docs/families.md; runs that are finished are not trained again.
"""

import dataclasses
import json
import pathlib
import sys

from absl import app, flags

from benchmarks.runs import trained
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.markdown import markdown_table

DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS has prepared cifar100", required=True)
OUT = flags.DEFINE_string("out", "runs/families", "folder for the runs")
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"

SHORT = RunConfig(
    task="classifier",
    dataset="cifar100",
    train_limit=4000,
    epochs=4,
    batch_size=64,
    learning_rate=0.05,
    warmup_epochs=0.5,
    steps_per_call=10,
)
# title -> what differs from SHORT; an extractor or teacher is the title of a run above it
RUNS = {
    "extractor_cdcgm": {"task": "extractor", "context": "cdcgm", "fool_ramp_fraction": 0.5, "learning_rate": None},
    "extractor_cgm": {"task": "extractor", "context": "cgm", "learning_rate": None},
    "extractor_gm": {"task": "extractor", "context": "gm", "learning_rate": None},
    "extractor_dm": {"task": "extractor", "context": "dm", "network": "wrn16_2"},
    "vgg13_slim": {"network": "vgg13_slim"},
    "resnet20": {"network": "resnet20"},
    "preresnet110": {"network": "preresnet110"},
    "wrn16_2": {"network": "wrn16_2"},
    "resnet18": {"network": "resnet18"},
    "vgg13_slim + CDCGM gate": {"network": "vgg13_slim", "extractor": "extractor_cdcgm"},
    "vgg13_slim + CGM gate": {"network": "vgg13_slim", "extractor": "extractor_cgm"},
    "vgg13_slim + GM gate": {"network": "vgg13_slim", "extractor": "extractor_gm"},
    "vgg13_slim + DM gate": {"network": "vgg13_slim", "extractor": "extractor_dm"},
    "vgg13_slim + SE + gate": {
        "network": "vgg13_slim", "block_attention": "se", "extractor": "extractor_cdcgm",
    },
    "vgg13_slim + CBAM + gate": {
        "network": "vgg13_slim", "block_attention": "cbam", "extractor": "extractor_cdcgm",
    },
    "resnet20 + SE + gate": {"network": "resnet20", "block_attention": "se", "extractor": "extractor_cdcgm"},
    "resnet20 + CBAM + gate": {
        "network": "resnet20", "block_attention": "cbam", "extractor": "extractor_cdcgm",
    },
    "vgg13_slim + AT (wrn16_2)": {"network": "vgg13_slim", "teacher": "wrn16_2"},
    "vgg13_slim + AT (wrn16_2) + gate": {
        "network": "vgg13_slim", "teacher": "wrn16_2", "extractor": "extractor_cdcgm",
    },
}  # fmt: skip


def main(argv):
    del argv
    quiet_libraries()
    folder = pathlib.Path(OUT.value)
    records = []
    for title, changes in RUNS.items():
        config = dataclasses.replace(SHORT, data_dir=DATA_DIR.value, **changes)
        for name in ("extractor", "teacher"):
            if changes.get(name):
                config = dataclasses.replace(config, **{name: str(folder / slug(changes[name]))})
        print(f"{title}: {folder / slug(title)}", file=sys.stderr)
        run = trained(config, folder / slug(title))
        records.append(record(title, changes, run))
        (DOCS / "results" / "families.json").write_text(json.dumps(records, indent=1) + "\n")
        (DOCS / "families.md").write_text(document(records))
    if stuck := [r["title"] for r in records if r["last_loss"] >= r["first_loss"]]:
        sys.exit(f"error: the loss did not fall: {', '.join(stuck)}")


def slug(title):
    """Returns the title as a folder's name."""
    return "".join(c if c.isalnum() or c in "_" else "-" for c in title.lower()).strip("-")


def record(title, changes, run):
    """Returns what is published of a run: no path of the machine it ran on."""
    rows, notes = run.rows(), run.notes()
    loss = "loss" if "loss" in rows[0] else "reconstruction_loss"
    return {
        "title": title,
        **{name: changes.get(name) for name in ("extractor", "teacher")},
        "teacher_top1": notes.get("teacher", {}).get("top1"),
        "loss": loss,
        "first_loss": rows[0][loss],
        "last_loss": rows[-1][loss],
        "last_epoch": rows[-1],
        **run.published(),
    }


def document(records):
    """Returns the page that shows the runs."""
    settings = records[0]["settings"]
    lines = [
        "# Every kind of system of the paper trains",
        "",
        "In every row the loss falls. The runs are too short to say more, and their accuracies mean nothing.",
        "",
        f"Each run has {records[0]['train_images']} images of CIFAR-100, {settings['epochs']} epochs, batch "
        f"{settings['batch_size']} and seed {settings['seed']}. The loss of an extractor is its reconstruction loss, "
        "and that of DM the cross-entropy. The loss of a classifier is its total loss. With attention transfer (AT), "
        "this is the cross-entropy, and 1000 times the sum of the losses of the transfer at three resolutions. "
        "`extractor_dm` is the classifier `wrn16_2`, so their losses are the same. `benchmarks/families.py` wrote this "
        "page from `results/families.json`.",
        "",
    ]
    rows = []
    for r in records:
        last = r["last_epoch"]
        top1 = f"{last['val_top1']:.1%}" if "val_top1" in last else ""
        losses = (f"{r[name]:.4f}" for name in ("first_loss", "last_loss"))
        rows.append((r["title"], *losses, top1, f"{last['images_per_second']:.0f}", f"{r['hours']:.2f}", r["commit"]))
    head = ("run", "loss, first epoch", "last epoch", "validation top-1", "images/s", "hours", "commit")
    lines.append(markdown_table(head, rows))
    lines += ["", f"Hardware: {records[0]['hardware']}. Other work ran beside, so the rates are lower bounds.", ""]
    transfers = [r for r in records if r["teacher"]]
    for r in transfers:
        parts = {k: v for k, v in r["last_epoch"].items() if k.startswith(("cross_entropy", "transfer_"))}
        shown = ", ".join(f"{k} {v:.4g}" for k, v in parts.items())
        lines += [
            "",
            f"The teacher of {r['title']} has {r['teacher_top1']:.1%} top-1 on validation. In the last epoch:",
        ]
        lines += [f"{shown}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app.run(main)
