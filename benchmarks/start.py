"""How long things take to start, each in a process of its own, beside `import keras` alone.

    python -m benchmarks.start

They take turns, one round each; seconds are medians of the rounds, and ratios medians of the rounds' ratios.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "start.json"
ALONE = "`import keras` alone"
# A training that ends after its first step: what is kept of it afterwards does not count.
FIRST_STEP = """
import os, sys, wrapt
from cdc_keras import cli

@wrapt.when_imported("cdc_keras.runs.callbacks")
def end(callbacks):
    callbacks.Progress.on_train_batch_end = lambda self, batch, logs=None: os._exit(0)

cli.run("train", ["--task=classifier", "--dataset=shapes", "--network=resnet20", "--run_dir=" + sys.argv[1]])
"""
PROGRAMS = {
    ALONE: "import keras",
    "`cdc-keras train --help`": "from cdc_keras import cli; cli.run('train', ['--help'])",
    "a command, until it reads its model": (
        "from cdc_keras.backend import start_keras; start_keras(lean=True); import cdc_keras.commands.evaluate"
    ),
    '`zoo.load("cifar100")`': "import cdc_keras; cdc_keras.zoo.load('cifar100')",
    "`cdc-keras train`, ResNet-20, until its first step is done": FIRST_STEP,
}


def measure(rounds):
    """Returns {what starts: seconds of every round}; one more round warms the disk's cache."""
    seconds = {title: [] for title in PROGRAMS}
    for number in range(rounds + 1):
        for title, program in PROGRAMS.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                done = subprocess.run([sys.executable, "-c", program, f"{folder}/run"], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"error: {title} failed:\n{done.stderr[-2000:]}")
                if number:
                    seconds[title].append(time.perf_counter() - started)
    return seconds


def table(seconds):
    """Returns the seconds, and their ratios to those of `ALONE`, as a Markdown table."""
    rows = []
    for title, of_this in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(of_this, seconds[ALONE], strict=True))
        rows.append((title, f"{statistics.median(of_this):.1f}", f"{ratio:.2f}"))
    return markdown_table(("what starts", "seconds", "over `import keras`"), rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="JSON file for every single measurement")
    arguments = parser.parse_args(argv)
    seconds = measure(arguments.rounds)
    print(table(seconds))
    record = {"rounds": arguments.rounds, "environment": environment(), "seconds": seconds}
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
