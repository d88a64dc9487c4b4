"""Images from class folders: JPEG, PNG, WebP and BMP files of any size."""

import concurrent.futures
import os
import sys

import numpy as np

from cdc_keras.data.class_folders import ODD_NAMES, listing, stray_report
from cdc_keras.data.crop import random_resized_crop
from cdc_keras.data.dataset import Dataset, Split, StreamSplit, numbered
from cdc_keras.data.image_file import decode, read_image
from cdc_keras.data.known import columns, masks
from cdc_keras.data.on_disk import Rows, files_key, in_memory, on_disk
from cdc_keras.data.split import TEST_FRACTION, TEST_SEED, cut_training, stratified_cut, too_large
from cdc_keras.errors import UserError
from cdc_keras.paths import expanded
from cdc_keras.progress import Bar


def load_folder(
    path, *, image_size, validation_fraction, seed, train_limit=None, crop_area=None, memory_limit=8 * 2**30
):
    """The `Dataset` of the image files under `path`.

    With `path/train/<class>/*` the folders beside `train` are held out: `val` (or `validation`) and `test`. Where one
    is there, it is the test split and validation is cut from training; where both are, each is what it says. Where none
    is, or where `path` itself holds the class folders, a seeded fifth of every class is the test split.

    Images are turned as their EXIF orientation says (or not, where EXIF is broken), put on mid-grey where they are
    transparent, and their shorter side is resized to `image_size` before the centre is cropped. Files that are no
    images are counted on stderr, files that cannot be decoded are named there, and both are left out.

    Beside the images may lie `labels.csv` and `masks/` (`data.known`); their columns and masks become `factors`.

    Args:
        path: the folder.
        image_size: height and width of every image that comes out, pixels.
        validation_fraction: share of training that becomes validation, in [0, 1); ignored where a folder holds it.
        seed: decides which images are cut, and which are kept under `train_limit`.
        train_limit: at most this many training images, every class in proportion; None is all.
        crop_area: trains on random resized crops of at least this share of a whole image's area, decoded again on every
            pass; None trains on the centre crops.
        memory_limit: bytes; splits that are to be held but exceed it together are decoded once, into the cache, and
            read from there.

    Raises:
        UserError: as for `class_folders.listing`, `known.columns` and `known.masks`, or a class has no readable image.
    """
    folders, listed, strays = listing(path)
    if strays:
        print(stray_report(strays), file=sys.stderr)
    if odd := sorted(ODD_NAMES & listed["train"].keys()):
        print(f"taken for a category: {', '.join(odd)}; move it away if it is none", file=sys.stderr)
    class_names = tuple(listed["train"])
    labelled = {part: _label(classes, class_names) for part, classes in listed.items()}
    readable = {part: _readable(*rows) for part, rows in labelled.items()}
    total, kept = (sum(len(labels) for _, labels in x.values()) for x in (labelled, readable))
    if kept < total:
        print(f"{total - kept} of {total} images are left out", file=sys.stderr)
    for part, (_, labels) in readable.items():
        if empty := [class_names[i] for i in _labels_of(listed[part], class_names) if i not in labels]:
            raise UserError(f"{folders[part]}: expected a readable image in every class folder, {empty[0]} has none")

    files = dict(readable)
    paths, labels = files["train"]
    if "test" not in files:
        rest, cut = stratified_cut(labels, TEST_FRACTION, TEST_SEED)
        files["test"] = paths[cut], labels[cut]
        paths, labels = paths[rest], labels[rest]
    fraction = 0.0 if "validation" in files else validation_fraction
    rows, cut = cut_training(labels, validation_fraction=fraction, train_limit=train_limit, seed=seed)
    files = {"validation": (paths[cut], labels[cut]), **files, "train": (paths[rows], labels[rows])}

    sizes = {part: len(labels) for part, (_, labels) in files.items()}
    large = too_large(sizes, image_size, crop_area, memory_limit)
    known = _known(expanded(path), files, image_size, large)
    splits = {}
    if crop_area is not None:
        splits["train"] = _cropped(*files.pop("train"), image_size, crop_area, known["train"])
    images = _on_disk if large else _in_memory
    # On disk are whole official splits, so that they serve another seed, which cuts them elsewhere.
    whole = files if crop_area is not None else readable
    held = images(
        {part: paths for part, (paths, _) in files.items()}, [paths for paths, _ in whole.values()], image_size
    )
    splits |= {part: Split(held[part], labels, known[part]) for part, (_, labels) in files.items()}
    return Dataset(name="folder", class_names=class_names, image_size=image_size, **splits)


def _known(folder, files, image_size, large):
    """Returns {part: factors}: the columns of labels.csv and the masks, of a large set those of held-out images."""
    paths = np.concatenate([of_part for of_part, _ in files.values()])
    ends = np.cumsum([len(of_part) for of_part, _ in files.values()])[:-1]
    found = {part: {} for part in files}
    for name, values in columns(folder, paths).items():
        for part, of_part in zip(files, np.split(values, ends), strict=True):
            found[part][name] = of_part
    for part, (of_part, _) in files.items():
        if large and part == "train":
            continue
        objects = masks(folder, of_part, image_size, on_disk if large else in_memory) if len(of_part) else None
        if objects is not None:
            found[part]["mask"] = objects
    return found


def _labels_of(classes, class_names):
    return [class_names.index(name) for name in classes]


def _label(classes, class_names):
    """(paths, labels): one row per file."""
    files = [file for listed in classes.values() for file in listed]
    labels = np.repeat(_labels_of(classes, class_names), [len(listed) for listed in classes.values()])
    return np.array([os.fspath(file) for file in files], object), labels.astype(np.int32)


def _readable(paths, labels):
    """(paths, labels) of the files that can be read; names the others on stderr.

    This comes before any cut, so that what is cut does not depend on whether the images will be held in memory.
    """

    def problem(path):
        try:
            with open(path, "rb") as file:
                decode(file, draft=64)  # A JPEG decodes several times faster at an eighth, and still to its end.
        except Exception as error:  # On bad bytes PIL's decoders raise almost anything.
            return f"{path} ({error})"

    with concurrent.futures.ThreadPoolExecutor() as pool:
        problems = list(Bar(len(paths), "files", "checking images", items=pool.map(problem, paths)))
    for line in filter(None, problems):
        print(f"image left out: {line}", file=sys.stderr)
    keep = np.array([problem is None for problem in problems], bool)
    return paths[keep], labels[keep]


def _in_memory(parts, whole, image_size):
    """Returns {part: (N, image_size, image_size, 3) uint8} of {part: paths}."""
    del whole
    shape = (image_size, image_size, 3)
    held = {part: np.empty((len(paths), *shape), np.uint8) for part, paths in parts.items()}
    for part, paths in parts.items():
        _decode(paths, held[part])
    return held


def _on_disk(parts, whole, image_size):
    """Returns {part: `Rows` of an array of images on disk}; `whole` are lists of paths to be there."""
    paths = np.sort(np.concatenate(whole))
    shape = (len(paths), image_size, image_size, 3)
    array, _ = on_disk("images", lambda: files_key(paths), shape, np.uint8, lambda images: _decode(paths, images))
    row_of = {path: row for row, path in enumerate(paths)}
    return {part: Rows(array, np.array([row_of[path] for path in of_part], int)) for part, of_part in parts.items()}


def _decode(paths, images):
    """Writes the images of files into an array (N, S, S, 3)."""

    def write(row):  # here, not where the results are counted, so that none waits there in memory
        images[row] = read_image(paths[row], images.shape[1])

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in Bar(len(paths), "images", "decoding", items=pool.map(write, range(len(paths)))):
            pass
    return {}


def _cropped(paths, labels, image_size, crop_area, factors):
    """Returns the `StreamSplit` of images that are cropped at random, so decoded on every pass."""

    def examples(shuffle_seed=None, selected=None, augment=False):
        import tensorflow as tf

        def read(path):
            return read_image(os.fsdecode(path), None if augment else image_size)

        def decode(place, example):
            path, label = example
            image = tf.numpy_function(read, [path], tf.uint8)
            if augment:
                image = random_resized_crop(image, image_size, crop_area, tf.stack([shuffle_seed, place]))
            return tf.ensure_shape(image, (image_size, image_size, 3)), label

        stored = tf.data.Dataset.from_tensor_slices((tf.constant(list(map(os.fsencode, paths)), tf.string), labels))
        if shuffle_seed is not None:
            stored = stored.shuffle(max(len(paths), 1), seed=shuffle_seed, reshuffle_each_iteration=False)
        return numbered(stored, selected).map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    return StreamSplit(examples, len(paths), factors)
