"""From a record to its network, and what may be wrong with either: nothing is parsed or assigned before its check."""

import concurrent.futures
import hashlib
import math
import os
import pathlib

import keras
import numpy as np

from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.paths import expanded
from cdc_keras.trainers.build import classifier, in_precision, untrained_disentangler, untrained_extractor
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.weights import fingerprint, load_weights
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.files import FolderZoo
from cdc_keras.zoo.record import DECODER, DISENTANGLER, INDEX, PRESET, File, Record


def find(name):
    """Returns (zoo, name of the record's folder, `Record`) of a name or a path."""
    text = os.fspath(name)
    separators = {"/", os.sep, os.altsep} - {None}
    if not isinstance(name, pathlib.Path) and not any(separator in text for separator in separators):
        zoo = zoo_files.current()
        if not os.path.isdir(text) or text in zoo.index():
            return zoo, text, read_record(zoo, text)
    path = pathlib.Path(os.path.abspath(expanded(name)))
    if not os.path.isdir(path):  # False for a name too long for the file system
        raise UserError(f"{path} is no folder of a record; give one, or a name out of zoo.names()")
    zoo = FolderZoo(path.parent, trusted=True)
    return zoo, path.name, read_record(zoo, path.name)


def read_record(zoo, name):
    """Returns the `Record` in the folder `name` of a zoo, its sha256 checked against the index first."""
    listed = zoo.listed(name)
    path = zoo.bring(name, PRESET, listed and File(zoo_files.TEXT_LIMIT, listed))
    content = zoo_files.read_text(path)
    if listed is not None and hashlib.sha256(content).hexdigest() != listed:
        raise UserError(f"{path} is not the file that {INDEX} lists (sha256 differs); get the record again")
    record = Record.from_json(content, path)
    if listed is not None and record.name != name:
        raise UserError(f"{path} is the record of {record.name}, not of {name}; get the record again")
    return record


def name_of_weights(zoo, kind, sha256):
    """Returns the name of the record of a kind whose weights' file has a sha256, None if there is none in the zoo."""
    for name in sorted(zoo.index()):
        record = read_record(zoo, name)
        if (record.kind, record.weights.sha256) == (kind, sha256):
            return name
    return None


@keras_defaults()
def load_network(zoo, name, record, precision="float32"):
    """Returns the network of a record with its weights, frozen and of the record's name.

    Args:
        zoo: a `FolderZoo` or `UrlZoo`.
        name: of the record's folder in it.
        record: the `Record`.
        precision: to compute in, one of `choices.PRECISIONS`; what was trained in another has float32 weights, too.

    Raises:
        UserError: a file is not the one that was released, or this version builds another network.
    """
    path, values = _bring(zoo, name, record.weights.file, record.weights)
    network = _with_weights(path, values, lambda: _build(zoo, record, precision), record)
    network.trainable, network.name = False, record.name
    return network


@keras_defaults()
def load_disentangler(zoo, name, record):
    """Returns the `Disentangler` that an extractor's record was trained in, to be evaluated; in float32.

    Args:
        zoo: a `FolderZoo` or `UrlZoo`.
        name: of the record's folder in it.
        record: the `Record`, `has_disentangler`.

    Raises:
        UserError: the file is not the one that was released, or its encoder is not the extractor.
    """
    if DISENTANGLER not in record.files:
        raise UserError(f"{zoo.path / name / PRESET} does not list {DISENTANGLER}; make the record again")
    path, values = _bring(zoo, name, DISENTANGLER, record.files[DISENTANGLER])
    extractor = load_network(zoo, name, record)
    config = in_precision(record.run_config(), "float32")
    model = _with_weights(path, values, lambda: untrained_disentangler(config, len(record.class_names)))
    pairs = zip(model.encoder.get_weights(), extractor.get_weights(), strict=True)
    if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
        raise UserError(f"the encoder in {path} is not the extractor in {record.weights.file}; get the record again")
    model.compile()
    return model


@keras_defaults()
def load_decoder(zoo, name, record):
    """Returns the decoder of an extractor's record, in float32.

    Args:
        zoo, name, record: as for `load_disentangler`.

    Raises:
        UserError: the file is not the one that was released.
    """
    if DECODER not in record.files:
        raise UserError(f"{zoo.path / name / PRESET} does not list {DECODER}; make the record again")
    path, values = _bring(zoo, name, DECODER, record.files[DECODER])
    config = in_precision(record.run_config(), "float32")
    return _with_weights(path, values, lambda: untrained_disentangler(config, len(record.class_names)).decoder)


def _bring(zoo, name, file, expected):
    """Returns (path, number of values) of a weights' file, having checked that it is the `File` expected."""
    path = zoo.bring(name, file, expected)
    zoo_files.check_file(path, expected)
    return path, zoo_files.count_values(path)


def _with_weights(path, values, build, record=None):
    """Returns the model that `build` returns with the weights of a file that holds so many values.

    It is built twice, first without memory for its variables: however large a preset.json would have it, a model that
    does not fit its file costs nothing.

    Args:
        path: the weights' file.
        values: how many numbers it holds.
        build: a function that returns the untrained model.
        record: a `Record` whose fingerprint it is to have, if any.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # Keras keeps its list of such variables by thread
        plan = thread.submit(_without_memory, build).result()
    if record is not None and (ours := fingerprint(plan)) != record.fingerprint:
        raise UserError(
            f"{path} is of a network with fingerprint {record.fingerprint}, and this version of the library builds "
            f"{ours}; use the version it was trained with ({record.commit})"
        )
    needed = sum(math.prod(variable.shape) for variable in _saved(plan))
    if values != needed:  # Keras only warns of some that are missing, and says nothing of more
        raise UserError(f"{path} has {values} values where its network has {needed}; get the record again")
    model = build()
    load_weights(model, path)
    return model


def _saved(model):
    """Returns the variables that a weights' file of a model holds; Keras leaves out the state of random draws."""
    if isinstance(model, Disentangler):
        return model.variables + model.metrics_variables
    return [variable for variable in model.variables if not variable.path.endswith("seed_generator_state")]


def _without_memory(build):
    """Returns what `build` builds, its variables without values."""
    with keras.StatelessScope(initialize_variables=False):
        return build()


def _build(zoo, record, precision):
    """Returns the untrained network of a record."""
    config, extractor = in_precision(record.run_config(), precision), None
    if record.extractor is not None:
        of_extractor = _record_of_extractor(zoo, record.extractor)
        categories = len(of_extractor.class_names) if config.gate_spread else None
        extractor = untrained_extractor(in_precision(of_extractor.run_config(), precision), categories)
    try:
        if record.kind == "extractor":
            return untrained_extractor(config)
        return classifier(config, len(record.class_names), extractor)
    except ValueError as error:
        raise UserError(f"the network of {record.name} cannot be built: {error}; get the record again") from error


def _record_of_extractor(zoo, extractor):
    """Returns the `Record` of the extractor that a gated classifier contains."""
    if isinstance(zoo, FolderZoo) and zoo.trusted and not (zoo.path / extractor.name).is_dir():
        zoo = zoo_files.current()  # a record alone in its folder
    record = read_record(zoo, extractor.name)
    if record.kind != "extractor" or record.weights.sha256 != extractor.sha256:
        raise UserError(f"the record {extractor.name} of the zoo {zoo} is not the extractor that was gated with")
    return record


def names() -> list[str]:
    """Returns the sorted names of the records there are.

    Examples:
        >>> from cdc_keras import zoo
        >>> "shapes" in zoo.names()
        True
    """
    return sorted(zoo_files.current().index())


def info(name: str | os.PathLike[str]) -> Record:
    """Returns the `Record` of a name, or of the path of a record's folder.

    Raises:
        UserError: there is no such record, or its preset.json is not the one that was released.

    Examples:
        >>> from cdc_keras import zoo
        >>> zoo.info("shapes").kind
        'extractor'
    """
    return find(name)[2]


def load(name: str | os.PathLike[str]) -> keras.Model:
    """Returns the released network as a functional `keras.Model` of the record's name, all its weights frozen.

    An extractor maps images (B, S, S, 3) in [-1, 1] to T (B, h, h, C), a classifier to logits (B, num_classes). Where T
    has noise, as that of "shapes", it is another in every call. A gated classifier contains its extractor. All compute
    in float32, in whatever precision they were trained. Only a zoo at a URL is ever asked for over the network, and
    once. `cdc_keras.preprocess_input` brings pixels from 0 to 255 to [-1, 1], and `cdc_keras.decode_predictions` turns
    logits into names and probabilities.

    Args:
        name: of a record, see `names`, or the path of a record's folder, with a separator in it.

    Raises:
        UserError: there is no such record, or a file of it is not the one that was released.

    Examples:
        >>> import numpy as np
        >>> import cdc_keras
        >>> pixels = np.zeros((1, 32, 32, 3), "uint8")
        >>> extractor = cdc_keras.zoo.load("shapes")
        >>> tuple(extractor(cdc_keras.preprocess_input(pixels)).shape)
        (1, 8, 8, 16)
    """
    return load_network(*find(name))
