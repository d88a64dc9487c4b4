"""Trains an extractor or a classifier: python train.py --flagfile=configs/... --run_dir=runs/..."""

import sys

from absl import app
from absl.flags import FLAGS, adopt_module_key_flags

from cdc_keras import flags
from cdc_keras.errors import UserError


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras.cli import quiet_libraries

    from cdc_keras.devices import precision
    from cdc_keras.runs.training import train

    quiet_libraries()
    try:
        config = flags.config_from_flags()
        precision.share_cores(config)
        run = train(config, FLAGS.run_dir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last checkpoint")
    if not run.finished:
        sys.exit(130)  # stopped by a signal; what follows in a script is not to run on half a model


if __name__ == "__main__":
    flags.define()
    adopt_module_key_flags(flags)  # --help then lists them
    app.run(main)
