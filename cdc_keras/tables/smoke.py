"""A smoke test of the tables: every row for real, with a small network of its family, on a few images."""

import dataclasses
import pathlib
import re

import numpy as np
from PIL import Image

from cdc_keras.config import RunConfig
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes

IMAGE_SIZES = {1: 32, 2: 32, 3: 32, 4: 32, 5: 224, 6: 128}
COUNTS = {"train": 20, "val": 10, "test": 10}
CORRUPTED_IMAGES = 1
# (pattern of a network's name, the one in its place): of the same kind, as building a deep one takes a minute.
STAND_INS = (
    (r"vgg(\d+)(_.*)?", r"vgg\1_w4"),
    (r"wrn.*", "wrn10_1"),
    (r"preresnet.*", "resnet14"),
    (r"resnet(32|56|110|20|26|44)", "resnet8"),
    (r"resnet(34|50|101|152)", "resnet18"),
)


def images(folder):
    """Returns a folder of class folders of rendered shapes, made unless it is there.

    Args:
        folder: for `train`, `val` and `test`.
    """
    folder = pathlib.Path(folder)
    for seed, (split_name, count) in enumerate(COUNTS.items()):
        if (folder / split_name).is_dir():
            continue
        unfinished = folder / f".{split_name}"
        split = shapes(count, seed=seed, image_size=max(IMAGE_SIZES.values()))
        for i, (pixels, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = unfinished / CLASS_NAMES[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(pixels)).save(path)
        unfinished.rename(folder / split_name)
    return folder


def configs(number, folder):
    """Returns (classifier, extractor), the `RunConfig`s of a table's smoke test, on the images in `folder`."""
    size = IMAGE_SIZES[number]
    common = {"dataset": "folder", "data_dir": str(folder), "image_size": size, "epochs": 1, "batch_size": 8}
    classifier = RunConfig(task="classifier", **common, warmup_epochs=0, learning_rate_drops=())
    return classifier, RunConfig(task="extractor", **common, fool_ramp_fraction=0.5)


def small(job):
    """Returns a `Job` with a small network in the place of its own."""
    network = job.config.network
    for pattern, stand_in in STAND_INS:
        if match := re.fullmatch(pattern, network):
            return dataclasses.replace(job, config=dataclasses.replace(job.config, network=match.expand(stand_in)))
    return job
