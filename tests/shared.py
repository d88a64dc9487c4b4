"""Folders that are made once and read by all processes of the tests."""

import os

import filelock


def made_once(tmp_path_factory, name, make):
    """Returns the folder `name`, which `make(folder)` fills in the first process that asks for it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    made = folder.with_suffix(".made")
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            make(folder)
            made.touch()
    return folder
