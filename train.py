"""Trains an extractor or a classifier: python train.py --flagfile=configs/... --run_dir=runs/..."""

import sys

from absl import app

from cdc_keras import flags
from cdc_keras.errors import UserError


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras.training import train  # imports the backend, which --help needs not wait for

    try:
        train(flags.config_from_flags(), flags.FLAGS.run_dir)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    flags.define()
    app.run(main)
