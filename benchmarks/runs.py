"""The runs that benchmarks train."""

import sys

from cdc_keras.runs.training import train


def trained(config, folder, pictures=False):
    """Returns the finished `RunFolder` of a `RunConfig`; one that was stopped by Ctrl-C ends the program."""
    run = train(config, folder, pictures=pictures)
    if not run.finished:
        sys.exit(130)
    return run
