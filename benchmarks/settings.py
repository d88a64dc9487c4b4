"""Our training step under other settings of TensorFlow and Keras, beside the default, on the same cores.

    python -m benchmarks.settings --out settings.json

Every setting runs in a process of its own, and they take turns, one round each; the ratios are medians of the rounds'
ratios to the default, above 1 where the setting is faster. The default on this kind of device is to be the fastest.
"""

import argparse
import json
import os
import pathlib
import sys

from benchmarks import training_step
from benchmarks.turns import elsewhere, environment, median_ratio, processes
from cdc_keras.markdown import markdown_table

DEFAULT = "default: float32, no jit, oneDNN, one step a call"
SETTINGS = {
    DEFAULT: {},
    "10 steps a call (--steps_per_call)": {"steps_per_call": 10},
    "jit_compile": {"jit": True},
    "oneDNN off": {"environment": {"TF_ENABLE_ONEDNN_OPTS": "0"}},
    "mixed_bfloat16 (--precision)": {"precision": "mixed_bfloat16"},
}
ROWS = ("resnet20", "extractor64")


def trainer(row, environment=None, jit=False, steps_per_call=1, **config):
    """Returns our training of a row under one setting."""
    os.environ.update(environment or {})
    ours = training_step.Ours(row, 20_000, steps_per_call, **config)
    ours.model.jit_compile = jit
    return ours


def measure(row, rounds, steps):
    """Returns {setting: [images/s of every round]}; one more round warms up."""
    rates = {setting: [] for setting in SETTINGS}
    made = {setting: (trainer, (row,), keywords) for setting, keywords in SETTINGS.items()}
    with processes(row.title, made) as asks:
        for number in range(rounds + 1):
            for setting, ask in asks.items():
                rate = ask(number=number, steps=steps if number else 10)
                if number:
                    rates[setting].append(rate)
    return rates


def ratios(rates):
    """Returns {setting: median over the rounds of its images/s over the default's}."""
    return {setting: median_ratio(values, rates[DEFAULT]) for setting, values in rates.items()}


def table(results):
    """Returns the ratios as a Markdown table, a column for each row."""
    titles = [training_step.ROWS[name].title for name in results]
    columns = [ratios(rates) for rates in results.values()]
    rows = [(setting, *(f"{column[setting]:.2f}" for column in columns)) for setting in SETTINGS]
    return markdown_table(("setting", *titles), rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each setting, at least 1")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a round, at least 1")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for every single measurement")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1 or arguments.steps < 1:
        parser.error("--rounds and --steps are at least 1")
    results = {}
    for name in ROWS:
        print(f"{training_step.ROWS[name].title} ...", file=sys.stderr)
        results[name] = measure(training_step.ROWS[name], arguments.rounds, arguments.steps)
    print(f"{training_step.CORES} cores, ratio of images/s to the default\n\n{table(results)}")
    if arguments.out:
        about = {"rounds": arguments.rounds, "environment": elsewhere(environment)}
        record = {**about, "rates": results}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
