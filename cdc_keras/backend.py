"""The start of Keras, whose settings are those of a process, of a variable and of a file that all projects share."""

import os

from cdc_keras.errors import UserError

BACKENDS = ("tensorflow", "jax")


def start_keras():
    """Imports Keras.

    Raises:
        UserError: its settings do not let it start, or say a backend that is none of `BACKENDS`.
    """
    try:
        import keras
    except (ImportError, ValueError) as error:  # of a backend that is unknown or not installed, or of keras.json
        raise UserError(f"Keras does not start: {' '.join(str(error).split())}; {_advice()}") from error
    if (name := keras.backend.backend()) not in BACKENDS:
        raise UserError(f"Keras runs on {name}; {_advice()}")


def _advice():
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    file = "" if home == os.devnull else f", or else the backend in {os.path.join(home, 'keras.json')},"
    return f"set the variable KERAS_BACKEND{file} to {' or '.join(BACKENDS)}"
