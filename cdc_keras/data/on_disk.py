"""Arrays too large for memory: decoded once, into a file of the cache, and read from there row by row."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile
import time
import zipfile

import numpy as np
import PIL

from cdc_keras.errors import UserError
from cdc_keras.paths import cache
from cdc_keras.progress import say

FOLDER = "decoded"  # in the cache
DECODING = 1  # to be raised when images are decoded in another way
ARRAY, BESIDE, PARTIAL = "array.npy", "beside.npz", "partial-"
ABANDONED = 24 * 3600  # seconds in which nobody has written to an array that is not finished


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of an array on disk. An index reads what it names, into an array in memory.

    Attributes:
        array: (N, ...) memory-mapped.
        rows: (M,) which of its rows these are, in this order.
    """

    array: np.memmap
    rows: np.ndarray

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return np.array(self.array[self.rows[index]])

    def __array__(self, dtype=None, copy=None):
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    @property
    def shape(self):
        """(M, ...)"""
        return (len(self), *self.array.shape[1:])


def in_memory(what, key, shape, dtype, fill):
    """Returns what `on_disk` does, made anew and held in memory."""
    del what, key
    array = np.empty(shape, dtype)
    return array, fill(array)


def on_disk(what, key, shape, dtype, fill):
    """Returns (a memory-mapped array, {name: small array}), which are made once and then kept in the cache.

    Args:
        what: its name in messages.
        key: () -> text that says all that the values depend on. Another text gets another array.
        shape, dtype: of the array.
        fill: takes the array, writes all of it, and returns small arrays to keep beside it, {name: array}.

    Raises:
        UserError: the cache cannot be written, or has too little room.
    """
    try:
        about = f"{DECODING} {PIL.__version__} {shape} {np.dtype(dtype)} {key()}"
        folder = cache() / FOLDER / hashlib.sha256(about.encode()).hexdigest()[:32]
        if not (folder / ARRAY).is_file():
            _make(folder, what, shape, dtype, fill)
        with np.load(folder / BESIDE) as beside:
            return np.load(folder / ARRAY, mmap_mode="r"), dict(beside)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{what} cannot be kept in {cache() / FOLDER} ({error}); remove that folder, or set CDC_KERAS_CACHE to "
            "another place"
        ) from error


def files_key(paths):
    """Returns the part of a key that changes with the content of files: their paths, sizes and times."""
    found = ((os.fsencode(os.path.abspath(path)), os.stat(path)) for path in paths)
    return "\n".join(f"{path} {about.st_size} {about.st_mtime_ns}" for path, about in found)


def _make(folder, what, shape, dtype, fill):
    """Writes the files of one array. They get their folder's name when they are whole; the first of two wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    size, free = int(np.prod(shape)) * np.dtype(dtype).itemsize, shutil.disk_usage(folder.parent).free
    if size > free:
        raise UserError(
            f"{what} take {_gigabytes(size)} decoded, too much to hold in memory, and {folder.parent} has "
            f"{_gigabytes(free)} free; make room there, or set CDC_KERAS_CACHE to a folder on another disk"
        )
    say(f"{what}: decoding them once, into {_gigabytes(size)} of {folder}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL, ignore_cleanup_errors=True) as partial:
        array = np.lib.format.open_memmap(pathlib.Path(partial, ARRAY), "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):  # or a disk that fills up while it is written would end the process
            with open(pathlib.Path(partial, ARRAY), "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        np.savez(pathlib.Path(partial, BESIDE), **fill(array))
        array.flush()
        os.chmod(partial, 0o755)
        try:
            os.rename(partial, folder)
        except OSError:
            if not (folder / ARRAY).is_file():
                raise


def _remove_abandoned(folder):
    """Removes what processes that were killed had begun: gigabytes that nobody would look for."""
    for partial in folder.glob(f"{PARTIAL}*"):
        try:
            written = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
        except OSError:  # it was finished or removed meanwhile
            continue
        if time.time() - written > ABANDONED:
            shutil.rmtree(partial, ignore_errors=True)


def _gigabytes(size):
    return f"{size / 1e9:.3g} GB"
