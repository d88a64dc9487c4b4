"""Scores a trained model: python evaluate.py --model=runs/... or --model=zoo:<name> (cdc-keras evaluate)."""

import sys

from cdc_keras import cli

if __name__ == "__main__":
    cli.run("evaluate", sys.argv[1:])
