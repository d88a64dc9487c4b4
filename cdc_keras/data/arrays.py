"""Images from an .npz of plain arrays: how a machine without TensorFlow gets the data sets that TFDS would read."""

import pathlib

import numpy as np

from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.data.split import cut_training
from cdc_keras.errors import UserError

KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path, *, name=None, image_size=None, validation_fraction, seed, train_limit=None):
    """Returns the `Dataset` in the .npz file at `path`, images bit for bit as stored.

    The validation cut is deterministic, but the rows of an .npz are in another order than TFDS stores the same images
    in, so the two hold out different images.

    Args:
        path: a file with x_train and x_test, (N, S, S), (N, S, S, 1) or (N, S, S, 3) uint8, and y_train and y_test, N
            integers from 0; optionally class_names, one string per class.
        name: what to call the data set; None is the file's name.
        image_size: height and width that is expected, pixels; None is the stored size. Arrays are never resized.
        validation_fraction, seed, train_limit: as for `load.load_dataset`.

    Raises:
        UserError: the file is missing, is no such file, or holds another image size.
    """
    path = pathlib.Path(path)
    arrays = _read(path)
    train = _split(path, arrays["x_train"], arrays["y_train"])
    test = _split(path, arrays["x_test"], arrays["y_test"])
    sizes = {train.images.shape[1:3], test.images.shape[1:3]}
    stored = train.images.shape[1]
    if sizes != {(stored, stored)}:
        raise UserError(f"{path}: expected square images of one size in x_train and x_test, found {sorted(sizes)}")
    if image_size not in (None, stored):
        raise UserError(f"{path} holds {stored} pixel images, image_size asks for {image_size}: leave image_size out")
    class_names = arrays.get("class_names")
    num_classes = 1 + max(train.labels.max(), test.labels.max())
    class_names = tuple(map(str, range(num_classes) if class_names is None else class_names))
    if len(class_names) < num_classes:
        raise UserError(f"{path}: {len(class_names)} class_names for labels to {num_classes - 1}: give one per class")
    train_rows, validation_rows = cut_training(
        train.labels, validation_fraction=validation_fraction, train_limit=train_limit, seed=seed
    )
    return Dataset(
        name=name or path.stem,
        class_names=class_names,
        image_size=stored,
        train=train.take(train_rows),
        validation=train.take(validation_rows),
        test=test,
    )


def _read(path):
    """Returns {key: array} of everything in the file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in (*KEYS, "class_names") if key in stored}
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Exception as error:  # NumPy and zipfile raise many things on a damaged or pickled file.
        raise UserError(f"{path} is not an .npz file of plain arrays: {error}") from error
    if missing := [key for key in KEYS if key not in arrays]:
        raise UserError(f"{path}: expected the arrays {', '.join(KEYS)}, but {', '.join(missing)} are missing")
    return arrays


def _split(path, images, labels):
    labels = labels.reshape(-1)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"{path}: expected uint8 images (N, S, S, 1 or 3), found {images.dtype} {images.shape}")
    if len(labels) != len(images) or not len(labels) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(f"{path}: expected one integer label from 0 for each of {len(images)} images in each split")
    return Split(np.repeat(images, 3 // images.shape[-1], axis=-1), labels.astype(np.int32))
