"""The zoo, the only place where released weights enter: load("name") gives a frozen network, checked before it is read.

python -m cdc_keras.zoo lists the records and verifies them, every number on their cards. CDC_KERAS_ZOO points at
another zoo, a folder or a URL.
"""

import sys

from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.files import FolderZoo
from cdc_keras.zoo.network import find, load_network, problems_of
from cdc_keras.zoo.record import INDEX, PRESET, wrong_scores
from cdc_keras.zoo.release import add

__all__ = ["add", "info", "load", "names", "verify", "wrong_scores"]


def names():
    """Returns the sorted names of the records there are."""
    return sorted(zoo_files.current().index())


def info(name):
    """Returns the `Record` of a name, or of the path of a record's folder.

    Raises:
        UserError: there is no such record, or its preset.json is not the one that was released.
    """
    return find(name)[2]


def load(name):
    """Returns the released network as a functional `keras.Model` of the record's name, all its weights frozen.

    An extractor maps images (B, S, S, 3) in [-1, 1] to T (B, h, h, C), a classifier to logits (B, classes). A gated
    classifier contains its extractor. All compute in float32, in whatever precision they were trained. Only a zoo at a
    URL is ever asked for over the network, and once.

    Args:
        name: of a record, see `names`, or the path of a record's folder, with a separator in it.

    Raises:
        UserError: there is no such record, or a file of it is not the one that was released.
    """
    return load_network(*find(name))


def verify(names=None, *, data_dir=None, numbers=True):
    """Returns what is wrong with the records, as sentences that name the file and the difference; empty if nothing is.

    Recomputed are size and sha256 of every file, the card, fingerprint, number of parameters and the golden output;
    then, of what has passed, every score and the audit, from the weights and the data: minutes to hours. What can not
    be, as the data are not there, is wrong, too.

    Args:
        names: records to verify; all, and the index, by default.
        data_dir: where the data are; TFDS' own default folder if not given.
        numbers: False leaves out scores and audits.

    Raises:
        UserError: there is no record of one of the names, or no zoo.
    """
    zoo = zoo_files.current()
    index = zoo.index()
    problems = [] if names is not None or not isinstance(zoo, FolderZoo) else _strays(zoo, index)
    for name in sorted(index) if names is None else names:
        if names is not None:
            zoo.listed(name)
        print(f"verifying {name}: files, card, network", file=sys.stderr, flush=True)
        found = problems_of(zoo, name)
        if numbers and not found:
            from cdc_keras.zoo.numbers import wrong_numbers  # by evaluation and audit, which open records themselves

            found = wrong_numbers(zoo, name, data_dir)
        problems += found
    return problems


def _strays(zoo, index):
    """Returns the folders of a zoo that its index does not list, as sentences."""
    folders = sorted(path.parent.name for path in zoo.path.glob(f"[!.]*/{PRESET}"))
    return [f"{zoo.path / INDEX} does not list {x}; make it with zoo.add" for x in folders if x not in index]
