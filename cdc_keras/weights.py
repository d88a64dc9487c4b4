"""Files that appear whole or not at all: weights, and text; and how a file or a network is known again."""

import contextlib
import errno
import hashlib
import math
import os
import pathlib
import tempfile

from cdc_keras.devices import distribution
from cdc_keras.errors import UserError

STEPS = "steps"  # path of the variable that counts a trainer's steps, which is no part of a network
ZEROS = bytes(2**20)
FREE_SPACE = "free some space, then run the same command"
ELSEWHERE = "choose another place, with --out where the command has it"
ADVICE = {  # what to do about an error of writing
    errno.ENOSPC: FREE_SPACE,
    errno.EFBIG: FREE_SPACE,
    getattr(errno, "EDQUOT", errno.ENOSPC): FREE_SPACE,  # Windows has no quota
    errno.ENOENT: "make its folder first; if it is there, another process wrote the same file at the same time",
}


def save_weights(model, path):
    """Writes the weights of `model`, with its optimizer's state, to a temporary name and then renames it.

    Raises:
        UserError: it cannot be written, and why; what was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.name.removesuffix('.weights.h5')}.partial.weights.h5")
    try:
        _try_space(temporary, model)
        distribution.in_one_worker(lambda: model.save_weights(temporary, overwrite=True))
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        _remove(temporary)
        raise UserError(f"could not save {path}: {_reason(error)}. What was there before is intact") from error


def _try_space(path, model):
    """Raises OSError if there is no room for the weights of `model` at `path`: HDF5 would print pages about it."""
    of_optimizer = model.optimizer.variables if getattr(model, "optimizer", None) else []
    # Keras saves what is inside a `MultiOptimizer` twice; 4,096 bytes are more than HDF5 needs to describe an array.
    size = sum(4096 + math.prod(v.shape) * 4 for v in (*model.variables, *of_optimizer, *of_optimizer))
    with path.open("wb") as file:
        for _ in range(size // len(ZEROS) + 1):
            file.write(ZEROS)


def load_weights(model, path, otherwise=""):
    """Loads what `save_weights` wrote.

    Args:
        model: of the structure that was saved.
        path: the file.
        otherwise: what to do if it cannot be loaded, for the message.

    Raises:
        UserError: the file is damaged, or of another model.
    """
    try:
        model.load_weights(path)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be loaded into this model: {str(error).splitlines()[0]}{otherwise}") from error


def fingerprint(model):
    """Returns the sha256 of the path, shape and dtype of every variable of `model` that is part of a network.

    Keras loads the weight file of a deeper model into a shallower one without an error; equal fingerprints exclude it.
    """
    variables = [v for v in model.variables if "seed_generator" not in v.path and v.path != STEPS]
    lines = [f"{v.path} {tuple(v.shape)} {v.dtype}" for v in variables]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sha256(path):
    """Returns the sha256 of a file."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def make_folder(path):
    """Makes a folder, unless it is there, and raises `UserError` if nothing can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"could not write to {path}: {_reason(error)}") from error


def write_text(path, text):
    """Writes a text file as UTF-8, whole or not at all; raises as `write_bytes`. Paths in it may be of any bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path, content):
    """Writes a file whole or not at all.

    Raises:
        UserError: it cannot be written, saying what to do; what was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(content)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        _remove(temporary)
        raise UserError(f"could not write {path}: {_reason(error)}") from error


def _remove(path):
    """Removes what is left of a file that could not be written, if that is possible."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _reason(error):
    """Returns why a file could not be written, and what to do about it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; {ADVICE.get(error.errno, ELSEWHERE)}"
    return str(error).splitlines()[0]  # HDF5's own


def _sync(path):
    """Has a file on the disk before its name is changed, and a folder after, where the system can do that."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
