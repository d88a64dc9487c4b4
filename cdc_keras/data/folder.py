"""Images from class folders: JPEG, PNG, WebP and BMP files of any size, read with PIL."""

import concurrent.futures
import os
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

from cdc_keras.data.crop import random_resized_crop
from cdc_keras.data.dataset import Dataset, Split, StreamSplit, only
from cdc_keras.data.split import TEST_FRACTION, TEST_SEED, cut_training, reported, stratified_cut, streamed_parts
from cdc_keras.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
VALIDATION_FOLDERS = ("val", "validation")
# What shows through a transparent pixel: no category has this grey for a background, as many would have white.
BACKDROP = (128, 128, 128)


def load_folder(
    path, *, image_size, validation_fraction, seed, train_limit=None, crop_area=None, memory_limit=8 * 2**30
):
    """The `Dataset` of the image files under `path`.

    With `path/train/<class>/*` the folders beside `train` are held out: `val` (or `validation`) and `test`. Where one
    is there, it is the test split and validation is cut from training; where both are, each is what it says. Where none
    is, or where `path` itself holds the class folders, a seeded fifth of every class is the test split.

    Images are turned as their EXIF orientation says, put on mid-grey where they are transparent, and their shorter side
    is resized to `image_size` before the centre is cropped. Files that are no images are listed on stderr, files that
    cannot be decoded are named there, and both are left out.

    Args:
        path: the folder.
        image_size: height and width of every image that comes out, pixels.
        validation_fraction: share of training that becomes validation, in [0, 1); ignored where a folder holds it.
        seed: decides which images are cut, and which are kept under `train_limit`.
        train_limit: at most this many training images, every class in proportion; None is all.
        crop_area: trains on random resized crops of at least this share of a whole image's area, decoded again on every
            pass; None trains on the centre crops.
        memory_limit: bytes; splits that are to be held but exceed it together are decoded again on every pass.

    Raises:
        UserError: the folder is missing, has fewer than two classes or an empty one, or holds out a class that is not
            trained on.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: data_dir must be a folder of class folders")
    folders, stray = _layout(path)
    listed = {part: _list_images(folder, stray) for part, folder in folders.items()}
    _report("no images, so left out", stray)
    for part, classes in listed.items():
        if len(classes) < (needed := 2 if part == "train" else 1):
            raise UserError(f"expected at least {needed} class folder(s) in {folders[part]}, found {len(classes)}")
    class_names = tuple(listed["train"])
    files = {part: _readable(*_label(folders[part], listed[part], class_names)) for part in folders}
    for part, (_, labels) in files.items():
        if empty := [class_names[i] for i in _known(listed[part], class_names) if i not in labels]:
            raise UserError(f"{folders[part]}: expected a readable image in every class folder, {empty[0]} has none")

    paths, labels = files["train"]
    if "test" not in files:
        rest, cut = stratified_cut(labels, TEST_FRACTION, TEST_SEED)
        files["test"] = paths[cut], labels[cut]
        paths, labels = paths[rest], labels[rest]
    fraction = 0.0 if "validation" in files else validation_fraction
    rows, cut = cut_training(labels, validation_fraction=fraction, train_limit=train_limit, seed=seed)
    files = {"validation": (paths[cut], labels[cut]), **files, "train": (paths[rows], labels[rows])}

    sizes = {part: len(labels) for part, (_, labels) in files.items()}
    streamed = streamed_parts(sizes, image_size, crop_area, memory_limit)
    splits = {
        part: _stream(*rows, image_size, crop_area) if part in streamed else _read_all(*rows, image_size)
        for part, rows in files.items()
    }
    return Dataset(name="folder", class_names=class_names, image_size=image_size, **splits)


def read_image(path, image_size=None):
    """(image_size, image_size, 3) uint8 of one file; raises whatever PIL raises where it cannot be decoded.

    Args:
        path: a file in any format that PIL knows.
        image_size: the shorter side is brought to this, then the centre cropped, pixels; None is the whole image.
    """
    with _open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits per pixel, which PIL would clip to 8 instead of scaling.
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            backdrop = Image.new("RGBA", image.size, BACKDROP)
            image = Image.alpha_composite(backdrop, image.convert("RGBA"))
        image = image.convert("RGB")
        if image_size is not None:
            # PIL's bilinear filter widens as it shrinks, so it does not alias.
            image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _open(path):
    image = Image.open(path)
    # PIL itself only warns up to twice this size.
    if image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels")
    return image


def _layout(path):
    """(split name -> folder, paths that belong to no split)."""
    if not (path / "train").is_dir():
        return {"train": path}, []
    held_out = [name for name in (*VALIDATION_FOLDERS, "test") if (path / name).is_dir()]
    if set(VALIDATION_FOLDERS) <= set(held_out):
        raise UserError(f"{path} holds both {' and '.join(VALIDATION_FOLDERS)}: keep one")
    parts = {1: ("test",), 2: ("validation", "test")}.get(len(held_out), ())
    folders = {"train": path / "train", **{part: path / name for part, name in zip(parts, held_out, strict=True)}}
    return folders, [entry for entry in sorted(path.iterdir()) if entry not in folders.values()]


def _list_images(folder, stray):
    """class name -> sorted image files; adds what is neither a class folder nor an image in one to `stray`."""
    classes = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            stray.append(entry)
            continue
        classes[entry.name] = []
        for file in sorted(entry.iterdir()):
            is_image = file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
            (classes[entry.name] if is_image else stray).append(file)
        if not classes[entry.name]:
            raise UserError(f"the class folder {entry} holds no image ({', '.join(sorted(SUFFIXES))})")
    return classes


def _known(classes, class_names):
    return [class_names.index(name) for name in classes]


def _label(folder, classes, class_names):
    """(paths, labels): one row per file."""
    if unknown := sorted(set(classes) - set(class_names)):
        raise UserError(f"{folder / unknown[0]} is a class that is not trained on: expected only {list(class_names)}")
    files = [file for listed in classes.values() for file in listed]
    labels = np.repeat(_known(classes, class_names), [len(listed) for listed in classes.values()])
    return np.array([os.fspath(file) for file in files], object), labels.astype(np.int32)


def _readable(paths, labels):
    """(paths, labels) of the files that decode; names the others on stderr.

    This comes before any cut, so that what is cut does not depend on whether the images will be held in memory.
    """

    def problem(path):
        try:
            with _open(path) as image:
                image.draft("RGB", (64, 64))  # A JPEG decodes several times faster at an eighth, and still to its end.
                image.load()
        except Exception as error:  # On bad bytes PIL's decoders raise almost anything.
            return f"{path} ({error})"

    with concurrent.futures.ThreadPoolExecutor() as pool:
        problems = list(reported(pool.map(problem, paths), len(paths), "checking image files"))
    for line in filter(None, problems):
        print(f"corrupt image left out: {line}", file=sys.stderr)
    if bad := sum(map(bool, problems)):
        print(f"{bad} of {len(paths)} images are corrupt and left out", file=sys.stderr)
    keep = np.array([problem is None for problem in problems], bool)
    return paths[keep], labels[keep]


def _report(what, paths):
    if paths:
        names = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
        print(f"{len(paths)} files or folders are {what}: {names}", file=sys.stderr)


def _read_all(paths, labels, image_size):
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda path: read_image(path, image_size), paths)
        for row, image in enumerate(reported(decoded, len(paths), "decoding images")):
            images[row] = image
    return Split(images, labels)


def _stream(paths, labels, image_size, crop_area):
    def examples(shuffle_seed=None, wanted=None, augment=False):
        import tensorflow as tf

        crops = augment and crop_area is not None

        def read(path):
            return read_image(os.fsdecode(path), None if crops else image_size)

        def decode(place, example):
            path, label = example
            image = tf.numpy_function(read, [path], tf.uint8)
            if crops:
                image = random_resized_crop(image, image_size, crop_area, tf.stack([shuffle_seed, place]))
            return tf.ensure_shape(image, (image_size, image_size, 3)), label

        stored = tf.data.Dataset.from_tensor_slices((tf.constant(list(map(os.fsencode, paths)), tf.string), labels))
        if shuffle_seed is not None:
            stored = stored.shuffle(max(len(paths), 1), seed=shuffle_seed, reshuffle_each_iteration=False)
        return only(stored, wanted).map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    return StreamSplit(examples, len(paths))
