"""The start of Keras, whose settings are those of a process, of a variable and of a file that all projects share."""

import contextlib
import os
import platform
import sys

from cdc_keras.errors import UserError

BACKENDS = ("tensorflow", "jax")
# What Keras and TensorFlow import if it is there, and our commands do not need from them: a third of a start.
OPTIONAL = ("jax", "matplotlib.pyplot", "sklearn")


def use_onednn():
    """Has TensorFlow compute convolutions by oneDNN, unless TF_ENABLE_ONEDNN_OPTS in the environment says otherwise.

    TensorFlow does so by itself on some processors only. Where it does not (an AMD EPYC with AVX2 alone), training is
    twice as fast with oneDNN (docs/speed.md). To be called before TensorFlow is imported.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def start_keras(lean=False):
    """Imports Keras.

    Args:
        lean: leave out what Keras and TensorFlow can do without (`OPTIONAL`); for a process of our own, since parts of
            Keras that wrap scikit-learn or draw galleries are missing then.

    Raises:
        UserError: its settings do not let it start, or say a backend that is none of `BACKENDS`.
    """
    try:
        with _without(OPTIONAL) if lean else contextlib.nullcontext():
            import keras
    except (ImportError, ValueError) as error:  # of a backend that is unknown or not installed, or of keras.json
        raise UserError(f"Keras does not start: {' '.join(str(error).split())}; {_advice()}") from error
    if (name := keras.backend.backend()) not in BACKENDS:
        raise UserError(f"Keras runs on {name}; {_advice()}")


@contextlib.contextmanager
def _without(names):
    """The context in which these modules cannot be imported, unless they have been; other backends may need them."""
    needed = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    hidden = [] if needed else [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _advice():
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    file = "" if home == os.devnull else f", or else the backend in {os.path.join(home, 'keras.json')},"
    return f"set the variable KERAS_BACKEND{file} to {' or '.join(BACKENDS)}"
