"""The three precisions on short real runs, of one seed: python -m benchmarks.precision --data_dir=...

A ResNet-20, an extractor and the ResNet-20 it gates train on CIFAR-100: on 2,000 images in float32 and mixed_bfloat16,
and on few images in all three, because a CPU computes float16's gradients of convolutions at a hundredth of the speed.
Writes docs/results/precision.json and the page docs/precision.md; runs that are finished are not trained again.
"""

import json
import pathlib
import sys

from absl import app, flags

from benchmarks.runs import trained
from cdc_keras.choices import PRECISIONS
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.markdown import markdown_table

DATA_DIR = flags.DEFINE_string("data_dir", None, "where TFDS has prepared cifar100", required=True)
OUT = flags.DEFINE_string("out", "runs/precision", "folder for the runs")
DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"

# title -> (settings all its runs share, the precisions)
LENGTHS = {
    "short": ({"train_limit": 2000, "epochs": 3, "batch_size": 64}, ("float32", "mixed_bfloat16")),
    "tiny": ({"train_limit": 128, "epochs": 2, "batch_size": 8}, PRECISIONS),
}
COMMON = {"dataset": "cifar100", "validation_fraction": 0.02}
CLASSIFIER = {"task": "classifier", "network": "resnet20", "learning_rate": 0.05, "warmup_epochs": 0.5}
SYSTEMS = {
    "ResNet-20": CLASSIFIER,
    "extractor": {"task": "extractor", "fool_ramp_fraction": 0.5},
    "gated ResNet-20": CLASSIFIER,
}


def main(argv):
    del argv
    quiet_libraries()
    records = []
    for length, (settings, precisions) in LENGTHS.items():
        for precision in precisions:
            for system, changes in SYSTEMS.items():
                records.append(measured(length, system, precision, {**COMMON, **settings, **changes}))
                (DOCS / "results" / "precision.json").write_text(json.dumps(records, indent=1) + "\n")
    (DOCS / "precision.md").write_text(document(records))


def measured(length, system, precision, settings):
    """Returns the record of one run, without a path of the machine it ran on."""
    folder = pathlib.Path(OUT.value) / length / precision
    if system.startswith("gated"):
        settings = {**settings, "extractor": str(folder / "extractor")}
    config = RunConfig(precision=precision, data_dir=DATA_DIR.value, **settings)
    print(f"{length}, {precision}: {system}", file=sys.stderr)
    run = trained(config, folder / system)
    return {
        "length": length,
        "system": system,
        "precision": precision,
        **run.published(),
        "epochs": run.rows(),
    }


HEAD = (
    *("system", "precision", "loss, first epoch", "last epoch", "validation top-1", "validation MSE", "images/s"),
    "skipped steps",
)


def document(records):
    """Returns the page that shows the runs."""
    first = records[0]
    lines = [
        "# Precision",
        "",
        "**Training in 16 bits follows training in 32 bits closely:** in the tables below, the losses are nearly the "
        "same. The runs are too short to compare accuracies.",
        "",
        "`--precision` says in which numbers convolutions and activations are computed. Weights, batch norm and "
        "losses stay in float32.",
        "",
        "* `float32` is the default.",
        "* `mixed_bfloat16` is for GPUs, and for CPUs that have instructions for it ([speed](speed.md)).",
        "* `mixed_float16` is for GPUs, and works on one device. The discriminator D and the auto-encoder each scale "
        "their loss.",
        "* `auto` takes `mixed_bfloat16` on TPUs, on GPUs from compute capability 8 on, and on CPUs with instructions "
        "for bfloat16. Elsewhere it takes `float32`. The run notes what was taken, and keeps it when it goes on "
        "elsewhere.",
        "",
        "Models trained in 16 bits are evaluated, audited and released in float32.",
        "",
        f"The runs below use CIFAR-100 and seed {first['settings']['seed']}. The loss of the extractor is its "
        "reconstruction loss, and that of a classifier the cross-entropy. Skipped steps are those that the scaling of "
        "losses left out; an extractor has two numbers, for its auto-encoder and for D. At batch 8 bfloat16 is slower "
        "than float32. `benchmarks/precision.py` wrote this page from `results/precision.json`.",
    ]
    for length in LENGTHS:
        of_length = [r for r in records if r["length"] == length]
        settings = of_length[0]["settings"]
        lines += [
            "",
            f"{of_length[0]['train_images']} images, {settings['epochs']} epochs, batch {settings['batch_size']}:",
            "",
            markdown_table(HEAD, map(row, sorted(of_length, key=lambda r: list(SYSTEMS).index(r["system"])))),
        ]
    lines += [
        "",
        f"Hardware: {first['hardware']}. Other work ran beside, so the rates are lower bounds and compare roughly. "
        "Each is that of the fastest epoch after the first, which compiles. Commit "
        f"{', '.join(sorted({str(r['commit']) for r in records}))}.",
        "",
        "This processor has instructions for bfloat16 (avx512_bf16, amx_bf16), which TensorFlow uses through oneDNN. "
        "Without oneDNN (`TF_ENABLE_ONEDNN_OPTS=0`), a step of ResNet-20 in bfloat16 took fifty times as long as one "
        "in float32 with it. In float16, the gradient of the filters of one 3x3 convolution took 3.5 s, and 3 ms in "
        "float32. We have measured neither on a GPU, for which both are meant.",
    ]
    return "\n".join(lines) + "\n"


def row(record):
    """Returns the cells of one row of a table."""
    loss = "loss" if "loss" in record["epochs"][0] else "reconstruction_loss"
    start, last = record["epochs"][0], record["epochs"][-1]
    shown = [f"{start[loss]:.4f}", f"{last[loss]:.4f}"]
    shown.append(f"{last['val_top1']:.1%}" if "val_top1" in last else "")
    shown.append(f"{last['val_reconstruction_loss']:.4f}" if "val_reconstruction_loss" in last else "")
    shown.append(f"{max(epoch['images_per_second'] for epoch in record['epochs'][1:]):.3g}")
    shown.append(", ".join(f"{v:.0f}" for k, v in last.items() if k.endswith("skipped_steps")))
    return [record["system"], record["precision"], *shown]


if __name__ == "__main__":
    app.run(main)
