"""The zoo, the only place where released weights enter: load("name") gives a frozen network, checked before it is read.

python -m cdc_keras.zoo lists the records and verifies them. CDC_KERAS_ZOO points at another zoo, a folder or a URL.
"""

from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.files import FolderZoo
from cdc_keras.zoo.network import find, load_network, problems_of
from cdc_keras.zoo.record import INDEX, PRESET
from cdc_keras.zoo.release import add

__all__ = ["add", "info", "load", "names", "verify"]


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
    classifier contains its extractor. Only a zoo at a URL is ever asked for over the network, and once.

    Args:
        name: of a record, see `names`, or the path of a record's folder, with a separator in it.

    Raises:
        UserError: there is no such record, or a file of it is not the one that was released.
    """
    return load_network(*find(name))


def verify(names=None):
    """Returns what is wrong with the records, as sentences that name the file and the difference; empty if nothing is.

    Recomputed are size and sha256 of every file, the card, fingerprint, number of parameters and the golden output.

    Args:
        names: records to verify; all, and the index, by default.

    Raises:
        UserError: there is no record of one of the names, or no zoo.
    """
    zoo = zoo_files.current()
    index = zoo.index()
    problems = [] if names is not None or not isinstance(zoo, FolderZoo) else _strays(zoo, index)
    for name in sorted(index) if names is None else names:
        if names is not None:
            zoo.listed(name)
        problems += problems_of(zoo, name)
    return problems


def _strays(zoo, index):
    """Returns the folders of a zoo that its index does not list, as sentences."""
    folders = sorted(path.parent.name for path in zoo.path.glob(f"[!.]*/{PRESET}"))
    return [f"{zoo.path / INDEX} does not list {x}; make it with zoo.add" for x in folders if x not in index]
