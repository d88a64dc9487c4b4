"""Data sets by name: `load_dataset(config)` gives a `Dataset` wherever the images come from."""

import pathlib

from cdc_keras.data.arrays import load_npz
from cdc_keras.data.class_names import named
from cdc_keras.data.folder import load_folder
from cdc_keras.data.imagenet150k import load_imagenet150k
from cdc_keras.data.shapes import load_shapes
from cdc_keras.data.tfds_source import load_tfds
from cdc_keras.errors import UserError
from cdc_keras.paths import expanded

SHAPES_TRAIN_SIZE, SHAPES_TEST_SIZE = 10_000, 2_000


def load_dataset(config, *, features=()):
    """Returns the `Dataset` that `config` asks for.

    Args:
        config: a `RunConfig`, which has checked the bounds, or anything with these attributes.
            dataset: "shapes" (rendered, no files), "folder" (class folders of image files), "imagenet150k" (150 images
                per class of TFDS' imagenet2012) or the name of a TFDS set, which is read from
                `<data_dir>/<dataset>.npz` where that file exists, else as TFDS prepared it.
            data_dir: where the files are; for TFDS None is its own default folder.
            image_size: height and width, pixels; None is the native size, which a folder does not have, and 128 for
                imagenet150k.
            validation_fraction: share of training that becomes validation, in [0, 1).
            background_bias: probability in [0, 1] that a category fixes its background; only `shapes` reads it.
            difficulty: of `shapes` alone, in [0, 1].
            train_limit: at most this many training images, every class in proportion; None is all, for `shapes` 10,000.
            crop_area: None, or in (0, 1]: trains on random resized crops of at least this share of a whole image's area
                (ImageNet: 0.08); the training split is then a `StreamSplit`. Not for `shapes` and .npz files.
            seed: decides what is rendered, which images become validation, and which are kept under `train_limit`.
        features: names of what else to read of the images of a TFDS set, into the splits' `factors`.

    Raises:
        UserError: the data set is unknown, not there, or not what it should be.
    """
    loader = LOADERS.get(config.dataset)
    return loader(config) if loader else _load_named(config, features)


def _data_dir(config):
    return None if config.data_dir is None else expanded(config.data_dir)


def _refuse_crops(config, what):
    if config.crop_area is not None:
        raise UserError(f"crop_area crops whole images as they are read from files, but {what}: leave crop_area out")


def _load_shapes(config):
    _refuse_crops(config, "shapes are rendered at their size")
    train_size = config.train_limit or SHAPES_TRAIN_SIZE
    return load_shapes(
        seed=config.seed,
        background_bias=config.background_bias,
        difficulty=config.difficulty,
        image_size=config.image_size or 32,
        train_size=train_size,
        validation_size=round(train_size * config.validation_fraction),
        test_size=SHAPES_TEST_SIZE,
    )


def _load_folder(config):
    if config.data_dir is None or config.image_size is None:
        raise UserError("a folder of images needs its path and a size to bring them to: give data_dir and image_size")
    return load_folder(_data_dir(config), crop_area=config.crop_area, **_common(config))


def _load_imagenet150k(config):
    return load_imagenet150k(data_dir=_data_dir(config), crop_area=config.crop_area, **_common(config))


def _load_named(config, features):
    arrays = pathlib.Path(_data_dir(config) or ".", f"{config.dataset}.npz")
    if config.data_dir is not None and arrays.is_file():
        _refuse_crops(config, f"{arrays} holds them at one size")
        dataset = load_npz(arrays, name=config.dataset, **_common(config))
    else:
        like = {**_common(config), "crop_area": config.crop_area, "features": features}
        dataset = load_tfds(config.dataset, data_dir=_data_dir(config), **like)
    return named(dataset)


def _common(config):
    return {
        "image_size": config.image_size,
        "validation_fraction": config.validation_fraction,
        "train_limit": config.train_limit,
        "seed": config.seed,
    }


# Every other name is a TFDS set.
LOADERS = {"shapes": _load_shapes, "folder": _load_folder, "imagenet150k": _load_imagenet150k}
