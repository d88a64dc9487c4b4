"""What a run folder holds, read without the library."""

import csv

import h5py

TIMES = ("seconds", "images_per_second")


def newest_step(folder):
    steps = [int(path.name[5:13]) for path in folder.glob("checkpoints/step-*.weights.h5")]
    return max(steps, default=0)


def values(path):
    """Returns {place in the file: array}."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


def metrics(folder):
    """Returns the rows of metrics.csv without what a clock measured."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
