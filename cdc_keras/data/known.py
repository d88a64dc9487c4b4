"""What a folder of images says of them beside their category: labels.csv, and masks of the objects."""

import csv
import os
import pathlib

import numpy as np
from PIL import Image

from cdc_keras.data.class_folders import LABELS, MASKS
from cdc_keras.data.image_file import decode, read_image
from cdc_keras.data.on_disk import files_key, in_memory
from cdc_keras.errors import UserError

FILE = "file"  # the column that names the image


def columns(folder, paths):
    """Returns {column of labels.csv: (N,) array of texts}, the value for each image; {} without such a file.

    A row names its image in the column `file`: by its path from the folder, by its name, or by its name without the
    ending, whatever is given once. Rows that name no image are left out, since images may be left out too.

    Args:
        folder: `pathlib.Path` of the data set.
        paths: (N,) paths of its images.

    Raises:
        UserError: the file is no table with a column `file`, or has no row, or two, for an image.
    """
    place = folder / LABELS
    if not place.is_file():
        return {}
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            head, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{place} is no table of comma-separated values in UTF-8: {error}") from None
    if FILE not in head or len(set(head)) < len(head):
        raise UserError(
            f"{place} needs a column {FILE} and different names for all columns; it has {', '.join(head) or 'none'}"
        )
    if "mask" in head:
        raise UserError(f"{place}: mask is what {MASKS}/ gives; give the column mask another name")
    if uneven := [number for number, row in enumerate(rows, 2) if len(row) != len(head)]:
        raise UserError(f"{place}, row {uneven[0]}: expected {len(head)} values, one for each column")
    at = head.index(FILE)
    named = {}
    for row in rows:
        if row[at] in named:
            raise UserError(f"{place} names {row[at]} twice; keep one row for each image")
        named[row[at]] = row
    found = [_row_of(path, folder, named, place) for path in map(pathlib.Path, paths)]
    if missing := [path for path, row in zip(paths, found, strict=True) if row is None]:
        raise UserError(f"{place} has no row for {len(missing)} of {len(paths)} images, such as {missing[0]}; add them")
    taken = {}
    for path, row in zip(paths, found, strict=True):
        if (other := taken.setdefault(id(row), path)) != path:
            raise UserError(f"{place}: {row[at]} is the name of both {other} and {path}; give paths from {folder}")
    return {name: np.array([row[i] for row in found], dtype=object) for i, name in enumerate(head) if name != FILE}


def masks(folder, paths, image_size, keep=in_memory):
    """Returns (N, image_size, image_size) bool, where the objects are; None where there are no masks of these images.

    The mask of `<split>/<class>/a.jpg` is `masks/<split>/<class>/a.png`, as large as the image, light where the object
    is. It is resized and cropped as the image is.

    Args:
        folder: `pathlib.Path` of the data set.
        paths: (N,) paths of its images.
        image_size: pixels.
        keep: `in_memory` or `on_disk`.

    Raises:
        UserError: an image has no mask while others have, or one that cannot be read or has another size.
    """
    places = [mask_of(folder, path) for path in paths]
    there = [place.is_file() for place in places]
    if not any(there):
        return None
    if not all(there):
        missing = places[there.index(False)]
        raise UserError(f"there is no mask {missing}, while other images have theirs; add it, or move {MASKS} away")

    def fill(found):
        for row, (place, path) in enumerate(zip(places, paths, strict=True)):
            found[row] = _mask(place, path, image_size)
        return {}

    return keep("masks", lambda: files_key([*places, *paths]), (len(places), image_size, image_size), bool, fill)[0]


def mask_of(folder, path):
    """Returns the path of the mask of an image, whether or not it is there."""
    return folder / MASKS / pathlib.Path(path).relative_to(folder).with_suffix(".png")


def _row_of(path, folder, named, place):
    """Returns the row that names an image, or None."""
    names = dict.fromkeys((path.relative_to(folder).as_posix(), path.name, path.stem))
    rows = [named[name] for name in names if name in named]
    if len(rows) > 1:
        raise UserError(f"{place} has two rows for {path}; keep one")
    return rows[0] if rows else None


def _mask(place, path, image_size):
    """Returns one mask, (image_size, image_size) bool."""
    try:
        with open(place, "rb") as mask, open(path, "rb") as image:
            sizes = decode(mask).size, decode(image).size
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the mask {os.fspath(place)} has {sizes[0][0]} x {sizes[0][1]} pixels and its image "
                f"{sizes[1][0]} x {sizes[1][1]}; make them equal"
            )
        return read_image(place, image_size)[..., 0] > 127
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the mask {os.fspath(place)} cannot be read: {error}") from None
