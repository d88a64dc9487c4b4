"""What do the zoo's classifiers lose in 8 bits? python -m benchmarks.int8 --data_dir=...

Each is exported for LiteRT twice, in float32 and in 8 bits, and both files are asked about the test images of
CIFAR-100. The ranges of 8 bits come from validation images, or from training images where a model had none. Writes
docs/results/int8.json; docs/fill.py makes the table.
"""

import json
import pathlib
import tempfile

from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

from cdc_keras import zoo
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import in_batches
from cdc_keras.export.export import export
from cdc_keras.export.litert import MODEL
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "int8.json"
FORMATS = ("litert", "litert_int8")
BAR = 0.005  # of the top-1 accuracy may be lost


def measured(name, data_dir, images, labels):
    """Returns {format: {"top1", "bytes"}} of a record of the zoo."""
    found = {}
    for format in FORMATS:  # noqa: A001
        with tempfile.TemporaryDirectory() as folder:
            file = export(f"zoo:{name}", folder, format=format, data_dir=data_dir).folder / MODEL
            ask = Interpreter(str(file), num_threads=1).get_signature_runner("serving_default")
            answers = in_batches(lambda batch, ask=ask: ask(images=batch)["probabilities"], images).argmax(axis=1)
            found[format] = {"top1": float((answers == labels).mean()), "bytes": file.stat().st_size}
    return found


def table(record):
    """Returns what was found as Markdown."""
    rows, met = [], 0
    for name, (exact, rounded) in ((n, (found[f] for f in FORMATS)) for n, found in record["models"].items()):
        lost = exact["top1"] - rounded["top1"]
        met += lost <= BAR
        sizes = (f"{x['bytes'] / 2**20:.2f}" for x in (exact, rounded))
        rows.append((name, *(f"{x['top1']:.2%}" for x in (exact, rounded)), f"{100 * lost:+.2f}", *sizes))
    head = ("model", "top-1, float32", "top-1, 8 bits", "lost, points", "MiB, float32", "MiB, 8 bits")
    return (
        f"{markdown_table(head, rows)}\n\n{record['images']} test images of CIFAR-100. The bar is a loss of at most "
        f"{100 * BAR} points; {met} of {len(rows)} models meet it. {record['hardware']}; commit {record['commit']}."
    )


def main(argv):
    del argv
    quiet_libraries()
    names = [name for name in zoo.names() if zoo.info(name).kind == "classifier"]
    data_dir = flags.FLAGS.data_dir
    test = load_dataset(RunConfig(task="classifier", dataset="cifar100", data_dir=data_dir)).test
    models = {name: measured(name, data_dir, test.images, test.labels) for name in names}
    record = {"models": models, "images": len(test), **environment()}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "where TFDS has prepared cifar100")
    app.run(main)
