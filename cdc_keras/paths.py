"""Paths as people type them."""

import os
import pathlib

from cdc_keras.errors import UserError


def expanded(path):
    """Returns the `pathlib.Path` of a path, its ~ or ~user filled in, which no shell does inside --flag=~/...

    Raises:
        UserError: there is no such user, or this process has no home.
    """
    full = os.path.expanduser(path)
    if os.fspath(full).startswith("~"):
        user = os.fspath(path).split(os.sep)[0]
        raise UserError(f"{path}: the home folder {user} is not known; write the path in full, or ./{path} for a name")
    return pathlib.Path(full)


def cache():
    """Returns the folder for what can be made or fetched again: CDC_KERAS_CACHE, by default ~/.cache/cdc_keras."""
    return expanded(os.environ.get("CDC_KERAS_CACHE") or "~/.cache/cdc_keras")
