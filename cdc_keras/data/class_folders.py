"""What lies in a folder of class folders: its splits, categories and image files, and what in it is none of these."""

import collections
import os
import pathlib

from cdc_keras.errors import UserError
from cdc_keras.paths import expanded

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
ENDINGS = ", ".join(sorted(SUFFIXES))
VALIDATION_FOLDERS = ("val", "validation")
LABELS, MASKS = "labels.csv", "masks"  # beside the images: what `data.known` reads
# Folders that programs leave behind or that come with a data set, and that are rarely meant for a category.
ODD_NAMES = {"BACKGROUND_Google", "__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN", "lost+found"}


def listing(path):
    """Returns (split -> its folder, split -> {class name: sorted image files}, paths that are neither) of a data set.

    It reads no file, and needs no backend: what can be seen wrong here is told before anything else starts.

    Raises:
        UserError: the folder is missing, cannot be listed, has fewer than two classes, a class without images or with a
            name that is no UTF-8, or holds out a class that is not trained on.
    """
    path = expanded(path)
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: data_dir must be a folder of class folders")
    folders, strays = split_folders(path)
    listed = {}
    for part, folder in folders.items():
        listed[part], others = class_files(folder)
        strays += others
    for part, classes in listed.items():
        if len(classes) < (needed := 2 if part == "train" else 1):
            raise UserError(f"expected at least {needed} class folder(s) in {folders[part]}, found {len(classes)}")
        if unknown := sorted(classes.keys() - listed["train"].keys()):
            raise UserError(
                f"{folders[part] / unknown[0]} is a class that is not trained on: expected only {list(listed['train'])}"
            )
    return folders, listed, strays


def entries(folder):
    """Returns the paths in `folder`, sorted.

    Raises:
        UserError: it may not be listed.
    """
    try:
        return sorted(pathlib.Path(folder).iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): allow it to be read, or move it away") from None


def split_folders(path):
    """Returns (split name -> folder, paths that belong to no split) of a data set.

    `path/train` is the training split where it holds folders; where it holds files it is a category called train.
    """
    if not any(_is_class_folder(entry) for entry in (entries(path / "train") if (path / "train").is_dir() else ())):
        return {"train": path}, []
    held_out = [name for name in (*VALIDATION_FOLDERS, "test") if (path / name).is_dir()]
    if set(VALIDATION_FOLDERS) <= set(held_out):
        raise UserError(f"{path} holds both {' and '.join(VALIDATION_FOLDERS)}: keep one")
    names = {1: ("test",), 2: ("validation", "test")}.get(len(held_out), ())
    folders = {"train": path / "train", **{split: path / name for split, name in zip(names, held_out, strict=True)}}
    return folders, [entry for entry in entries(path) if entry not in folders.values() and not _is_known(entry)]


def class_files(folder):
    """Returns (class name -> sorted image files, paths that are neither a class folder nor an image in one).

    Args:
        folder: of one split.

    Raises:
        UserError: a class folder cannot be listed, holds no image, or has a name that is no UTF-8.
    """
    classes, strays = {}, []
    for entry in entries(folder):
        if _is_known(entry):
            continue
        if not _is_class_folder(entry):
            strays.append(entry)
            continue
        try:
            name = os.fsencode(entry.name).decode("utf-8")  # whatever the locale
        except UnicodeDecodeError:
            raise UserError(
                f"the name of the folder {ascii(str(entry))} is not UTF-8, as that of a category is: rename it"
            ) from None
        in_class = entries(entry)
        files = [file for file in in_class if is_image(file)]
        if not files:
            raise UserError(f"the class folder {entry} holds no image ({ENDINGS}){_hint(entry)}")
        classes[name] = files
        strays += sorted(set(in_class) - set(files))
    return classes, strays


def stray_report(strays):
    """Returns one line that counts the paths of `strays` by the ending of their names, and names three."""
    endings = collections.Counter(_ending(path) for path in strays)
    counts = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
    names = ", ".join(map(str, strays[:3])) + (", ..." if len(strays) > 3 else "")
    return f"{len(strays)} files or folders are no images ({ENDINGS}), so left out: {counts}: {names}"


def _ending(path):
    if path.name.startswith("."):
        return "hidden"
    return "folders" if os.path.isdir(path) else path.suffix.lower() or "without an ending"


def _is_known(path):
    """Whether a path is labels.csv, or the folder of masks; one that holds images is a category of that name."""
    if path.name == MASKS and os.path.isdir(path):
        inside = entries(path)
        return any(os.path.isdir(entry) for entry in inside) and not any(is_image(entry) for entry in inside)
    return path.name == LABELS and os.path.isfile(path)


def _is_class_folder(path):
    return not path.name.startswith(".") and os.path.isdir(path)


def is_image(path):
    """Whether a path is a file that its name says to be an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def _hint(folder):
    """Returns what to do about a class folder without images, as the end of a sentence."""
    if folder.name in ODD_NAMES:
        return ": move it away if it is no category"
    for inner in entries(folder):
        if os.path.isdir(inner) and any(is_image(file) for file in entries(inner)):
            return f", but its folder {inner.name} does: move the images of every category one level up"
    return ": put images there, or move it away"
