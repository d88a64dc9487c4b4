"""cdc-keras train: a run folder from a configuration."""

import shlex
import sys

from cdc_keras import flags
from cdc_keras.devices import precision
from cdc_keras.runs.training import train


def main(values):
    """Trains what the flags say into `--run_dir`, and prints the commands that are of use next."""
    config = flags.config_from_flags(values)
    precision.share_cores(config)
    run = train(config, values.run_dir)
    if not run.finished:
        sys.exit(130)  # stopped by a signal; what follows in a script is not to run on half a model
    if run.writes:
        print(next_steps(config, values.run_dir))


def next_steps(config, run_dir):
    """Returns what to do with a finished run, as the lines of commands."""
    place = shlex.quote(str(run_dir))
    lines = ["next:", f"  cdc-keras evaluate --model={place}", f"  cdc-keras report --model={place}"]
    if config.task == "extractor":
        data = f" --data_dir={shlex.quote(config.data_dir)}" if config.data_dir else ""
        lines += [
            f"  cdc-keras audit --model={place}",
            "and to gate a classifier with it:",
            f"  cdc-keras train --task=classifier --dataset={shlex.quote(config.dataset)}{data} --extractor={place} "
            "--run_dir=runs/gated",
        ]
    return "\n".join(lines)
