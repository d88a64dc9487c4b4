"""Whether the records of a zoo are what they say: files, cards, networks and every number."""

import os
import sys

from cdc_keras.errors import UserError
from cdc_keras.release.card import card
from cdc_keras.release.golden import differences
from cdc_keras.release.numbers import wrong_numbers
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.files import FolderZoo
from cdc_keras.zoo.loading import load_disentangler, load_network, read_record
from cdc_keras.zoo.record import CARD, DECODER, DISENTANGLER, INDEX, PRESET


def verify(names=None, *, data_dir=None, numbers=True):
    """Returns what is wrong with the records, as sentences that name the file and the difference; empty if nothing is.

    Recomputed are size and sha256 of every file, the card, fingerprint, number of parameters and the golden output;
    then, from the weights and the data, every score and the audit of a record that passed: minutes to hours. Numbers
    that cannot be recomputed, as the data are not there, are wrong, too.

    Args:
        names: records to verify; all, and the index, by default.
        data_dir: where the data are; TFDS' own default folder if not given.
        numbers: False leaves out scores and audits; so does an installed package that comes without what they need.

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
        of_record = problems_of(zoo, name)
        missing = [] if of_record else _left_out(zoo, name, read_record(zoo, name))
        if missing:
            print(f"{name}: left out of the package: {', '.join(missing)}; {zoo_files.WITHOUT}", file=sys.stderr)
        if numbers and not of_record and DISENTANGLER not in missing:
            of_record = wrong_numbers(zoo, name, data_dir)
        problems += of_record
    return problems


def _left_out(zoo, name, record):
    """Returns the files of a record that an installed package comes without, and that nobody has put there."""
    if zoo.path != zoo_files.own() or zoo.path.name != zoo_files.INSTALLED:
        return []
    files = [file for file in record.files if file in (DISENTANGLER, DECODER) or file.endswith(".png")]
    return [file for file in files if not (zoo.path / name / file).exists()]


def _strays(zoo, index):
    """Returns the folders of a zoo that its index does not list, as sentences."""
    folders = sorted(path.parent.name for path in zoo.path.glob(f"[!.]*/{PRESET}"))
    return [
        f"{zoo.path / INDEX} does not list {x}; make it with cdc_keras.release.add" for x in folders if x not in index
    ]


def problems_of(zoo, name):
    """Returns what is wrong with the record in the folder `name`, as sentences."""
    try:
        record = read_record(zoo, name)
    except UserError as error:
        return [str(error)]
    problems, left_out = [], _left_out(zoo, name, record)
    for file, expected in {record.weights.file: record.weights, **record.files}.items():
        if file in left_out:
            continue
        try:
            zoo_files.check_file(zoo.bring(name, file, expected), expected)
        except UserError as error:
            problems.append(str(error))
    folder = zoo.path / name
    missing = sorted(record.must_hold - set(record.files))
    problems += [f"{folder / PRESET} does not list {x}; make the record again" for x in missing]
    if isinstance(zoo, FolderZoo):  # a cache may hold what an older record had
        strays = set(os.listdir(folder)) - {PRESET, record.weights.file, *record.files}
        problems += [f"{folder / x} is not in {PRESET}; remove it" for x in sorted(strays)]
    if (folder / CARD).is_file() and (folder / CARD).read_bytes() != card(record).encode():
        problems.append(
            f"{folder / CARD} is not the card that {PRESET} gives; make it again with cdc_keras.release.card"
        )
    try:
        network = load_network(zoo, name, record)
    except UserError as error:
        return problems + ([] if str(error) in problems else [str(error)])
    if (count := network.count_params()) != record.parameters:
        problems.append(f"{folder / PRESET} says {record.parameters} parameters; the network has {count}")
    problems += [f"{folder / record.weights.file}: {x}" for x in differences(network, record)]
    if DISENTANGLER in record.files and DISENTANGLER not in left_out:
        try:
            load_disentangler(zoo, name, record)
        except UserError as error:
            problems += [] if str(error) in problems else [str(error)]
    return problems
