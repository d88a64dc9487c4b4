"""Trains an extractor or a classifier: python train.py --flagfile=configs/... --run_dir=runs/... (cdc-keras train)."""

import sys

from cdc_keras import cli

if __name__ == "__main__":
    cli.run("train", sys.argv[1:])
