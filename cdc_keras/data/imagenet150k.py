"""ImageNet-150K: the 150 images per class of `imagenet2012` that the paper's appendix A.2 trains and tests on."""

import numpy as np

from cdc_keras.data.crop import squeezed
from cdc_keras.data.split import cut_training
from cdc_keras.data.tfds_features import checked_image_size
from cdc_keras.data.tfds_prepared import prepared
from cdc_keras.data.tfds_source import HELD, read_labels, read_parts
from cdc_keras.errors import UserError

SOURCE = "imagenet2012"
IMAGE_SIZE = 128
TRAIN_PER_CLASS, TEST_PER_CLASS = 148, 2


def load_imagenet150k(
    *, data_dir, image_size=None, validation_fraction, seed, train_limit=None, crop_area=None, memory_limit=HELD
):
    """Returns the `Dataset` of 150 images per class from the training split of a prepared `imagenet2012`.

    Which 150, and which two of them are the test split, is drawn by `draw` with a fixed seed, so that all runs share
    them; validation is cut from the other 148 as everywhere. Every image is resized to a square whole, its aspect ratio
    not kept ("We resize all the images into 128x128"). At 128 px all of it is 7.3 GB and held in memory. The stored
    split, 138 GB, is read once for the labels and once for each part.

    Args:
        image_size: height and width, pixels; None is 128.
        data_dir, validation_fraction, seed, train_limit, crop_area, memory_limit: as for `load_tfds`.

    Raises:
        UserError: `imagenet2012` is not prepared, or a class has fewer than 150 images.
    """
    builder = prepared(SOURCE, data_dir)
    image_size = checked_image_size(builder, image_size or IMAGE_SIZE)
    labels = read_labels(builder, "train")
    rows, test = draw(labels, builder.info.features["label"].names)
    train, validation = cut_training(
        labels[rows], validation_fraction=validation_fraction, train_limit=train_limit, seed=seed
    )
    parts = {"train": rows[train], "validation": rows[validation], "test": test}
    return read_parts(
        "imagenet150k",
        builder,
        {split: ("train", rows) for split, rows in parts.items()},
        image_size,
        fit=squeezed,
        crop_area=crop_area,
        memory_limit=memory_limit,
    )


def draw(labels, class_names):
    """Returns (train_rows, test_rows): sorted rows of the 148 and the 2 images of every class.

    They are the first 148 and the next 2 of a permutation of the class's rows by `numpy.random.default_rng(0)`, one
    generator for all classes in label order. The seed is fixed and not the run's.

    Args:
        labels: (N,) integer category of each row, in the order on disk.
        class_names: one per category, in label order.

    Raises:
        UserError: a class has fewer than 150 rows.
    """
    rng = np.random.default_rng(0)
    needed = TRAIN_PER_CLASS + TEST_PER_CLASS
    drawn = []
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels == label)
        if len(rows) < needed:
            raise UserError(
                f"imagenet150k takes {needed} training images of every class of {SOURCE}, but {name} has {len(rows)}: "
                "prepare the complete set"
            )
        drawn.append(rng.permutation(rows)[:needed])
    train, test = np.split(np.stack(drawn), [TRAIN_PER_CLASS], axis=1)
    return np.sort(train, axis=None), np.sort(test, axis=None)
