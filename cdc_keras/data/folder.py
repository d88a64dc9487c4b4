"""Images from class folders: JPEG, PNG, WebP and BMP files of any size."""

import concurrent.futures
import dataclasses
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

BLOCK = 10_000  # images that are waited for together


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
    store = None
    if crop_area is None and train_limit is None and too_large(_count(labelled), image_size, memory_limit):
        # Of all files, so that it serves another seed, which cuts them elsewhere.
        store = _store([rows[0] for rows in labelled.values()], image_size)
    problems = _problems if store is None else store.problems_of
    readable = {part: _readable(*rows, problems(rows[0])) for part, rows in labelled.items()}
    total, kept = _count(labelled), _count(readable)
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

    cropped = {} if crop_area is None else {"train": files.pop("train")}
    if store is None and too_large(_count(files), image_size, memory_limit):
        store = _store([rows[0] for rows in files.values()], image_size)
        _check_unchanged(store.problems)
    # Masks of training images are of no use but to look at, and not for images that are cropped or too many to hold.
    masked = files if store is None else files.keys() - {"train"}
    known = _known(expanded(path), files | cropped, masked, image_size, in_memory if store is None else on_disk)
    splits = {part: _cropped(*rows, image_size, crop_area, known[part]) for part, rows in cropped.items()}
    for part, (of_part, labels) in files.items():
        images = _in_memory(of_part, image_size) if store is None else store.images(of_part)
        splits[part] = Split(images, labels, known[part])
    return Dataset(name="folder", class_names=class_names, image_size=image_size, **splits)


def _count(files):
    """Returns the number of images of {split: (paths, labels)}."""
    return sum(len(labels) for _, labels in files.values())


def _known(folder, files, masked, image_size, keep):
    """Returns {part: factors}: the columns of labels.csv, and of the parts in `masked` the masks."""
    paths = np.concatenate([of_part for of_part, _ in files.values()])
    ends = np.cumsum([len(of_part) for of_part, _ in files.values()])[:-1]
    found = {part: {} for part in files}
    for name, values in columns(folder, paths).items():
        for part, of_part in zip(files, np.split(values, ends), strict=True):
            found[part][name] = of_part
    for part in masked:
        paths = files[part][0]
        if len(paths) and (objects := masks(folder, paths, image_size, keep)) is not None:
            found[part]["mask"] = objects
    return found


def _labels_of(classes, class_names):
    return [class_names.index(name) for name in classes]


def _label(classes, class_names):
    """(paths, labels): one row per file."""
    files = [file for listed in classes.values() for file in listed]
    labels = np.repeat(_labels_of(classes, class_names), [len(listed) for listed in classes.values()])
    return np.array([os.fspath(file) for file in files], object), labels.astype(np.int32)


def _readable(paths, labels, problems):
    """Returns (paths, labels) of the files without a problem; names the others on stderr."""
    for path, problem in problems.items():
        print(f"image left out: {path} ({problem})", file=sys.stderr)
    keep = np.array([path not in problems for path in paths], bool)
    return paths[keep], labels[keep]


def _problems(paths):
    """Returns {path: why it cannot be read} of the files that cannot.

    This comes before any cut, so that what is cut does not depend on where the images will be held.
    """

    def read(row):
        with open(paths[row], "rb") as file:
            decode(file, draft=64)  # A JPEG decodes several times faster at an eighth, and still to its end.

    return {paths[row]: problem for row, problem in _each(len(paths), read, "checking images").items()}


def _each(count, function, words):
    """Calls a function of each row, on all cores. Returns {row: what went wrong} where something did."""

    def problem(row):
        try:
            function(row)
        except MemoryError:
            raise
        except Exception as error:  # On bad bytes PIL's decoders raise almost anything.
            if isinstance(error, OSError) and error.errno is not None:  # no matter of the bytes
                raise UserError(f"{error}; start again when every image can be read") from error
            return str(error) or type(error).__name__

    found, bar = {}, Bar(count, "images", words)
    with bar, concurrent.futures.ThreadPoolExecutor() as pool:
        for start in range(0, count, BLOCK):  # all at once would queue kilobytes for each
            rows = range(start, min(start + BLOCK, count))
            for row, text in zip(rows, pool.map(problem, rows), strict=True):
                bar.update()
                if text is not None:
                    found[row] = text
    return found


def _in_memory(paths, image_size):
    """Returns (N, image_size, image_size, 3) uint8 of files that could be read before."""
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    _check_unchanged({paths[row]: problem for row, problem in _decode(paths, images).items()})
    return images


def _check_unchanged(problems):
    """Raises `UserError` if there is a problem with files that could be read before."""
    for path, problem in problems.items():
        raise UserError(f"{path} cannot be read any more ({problem}); start again when nothing changes the images")


def _decode(paths, images):
    """Writes the images of files into an array (N, S, S, 3); returns why some cannot be, as `_each` does."""

    def write(row):
        images[row] = read_image(paths[row], images.shape[1])

    return _each(len(paths), write, "decoding")


@dataclasses.dataclass(frozen=True)
class _Store:
    """Images of files on disk.

    Attributes:
        array: (N, S, S, 3) memory-mapped.
        problems: path -> why it could not be read, of those that could not.
        row_of: path -> its row.
    """

    array: np.memmap
    problems: dict
    row_of: dict

    def problems_of(self, paths):
        """Returns what `_problems` does."""
        return {path: self.problems[path] for path in paths if path in self.problems}

    def images(self, paths):
        """Returns the `Rows` of some files."""
        return Rows(self.array, np.array([self.row_of[path] for path in paths], int))


def _store(files, image_size):
    """Returns the `_Store` of lists of files, which are decoded if the cache does not have them."""
    paths = np.concatenate(files)

    def fill(images):
        problems = _decode(paths, images)
        return {"rows": np.array([*problems], int), "texts": np.array([*problems.values()], str)}

    shape = (len(paths), image_size, image_size, 3)
    array, beside = on_disk("images", lambda: files_key(paths), shape, np.uint8, fill)
    problems = {paths[row]: str(text) for row, text in zip(beside["rows"], beside["texts"], strict=True)}
    return _Store(array, problems, {path: row for row, path in enumerate(paths)})


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
