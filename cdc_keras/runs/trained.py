"""Trained models by where they are: a run folder, or a record of the zoo, `zoo:<name>`.

They compute in float32, in whatever precision they were trained, unless a run that trains takes them into its own.
"""

import dataclasses
import os
import random

import keras

from cdc_keras.choices import record_name
from cdc_keras.config import RunConfig
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.networks import registry
from cdc_keras.networks.spread import spread_extractor
from cdc_keras.runs.folder import RunFolder
from cdc_keras.trainers.build import build, in_precision, untrained_extractor
from cdc_keras.trainers.distillation import pair_by_resolution
from cdc_keras.weights import load_weights, sha256
from cdc_keras.zoo import loading


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network and what is known of it.

    Attributes:
        network: functional model.
        config: the `RunConfig` it was trained with.
        class_names: names of its categories.
        sha256: of the file its weights came from.
        record_sha256: of preset.json, for a record of the zoo.
    """

    network: keras.Model
    config: RunConfig
    class_names: tuple[str, ...]
    sha256: str
    record_sha256: str | None = None


def load(place: str | os.PathLike[str], *, spread: bool = False) -> keras.Model:
    """Returns a trained network as a functional `keras.Model`, in float32.

    An extractor maps images (B, S, S, 3) in [-1, 1] to T (B, h, h, C), a classifier to logits (B, num_classes). Where T
    has noise, as that of "zoo:shapes", it is another in every call; with `spread` it is without.

    Args:
        place: path of a finished run, or "zoo:<name>".
        spread: True returns an extractor's network images -> [T, V]; V, (B, h, h, 1), is where its picture would change
            if the category did (`networks.spread`).

    Raises:
        UserError: it is neither, its weights are damaged, or `spread` is asked of what has no decoder that is told the
            category.

    Examples:
        >>> import cdc_keras
        >>> cdc_keras.load("zoo:shapes").output_shape
        (None, 8, 8, 16)
    """
    return _context(place, "float32", spread).network if spread else load_trained(place).network


@keras_defaults()
def load_trained(place, kind=None, *, role=None, precision="float32"):
    """Returns the `Trained` of a run or a record.

    Args:
        place: path of a finished run, or "zoo:<name>".
        kind: "extractor" or "classifier" if it has to be one.
        role: what it is needed as, for messages; `kind` by default.
        precision: to compute in, one of `choices.PRECISIONS`.

    Raises:
        UserError: there is no such network, it is of the other kind, or it is damaged.
    """
    role = role or kind or "network"
    name = record_name(place)
    if name is not None:
        return _from_zoo(name, kind, role, precision)
    run = RunFolder(place)
    config = run.config()
    is_kind = {None: True, "extractor": config.task == "extractor", "classifier": config.classifies}
    if not is_kind[kind]:
        raise UserError(f"the {role} {place} is a run of task {config.task}; give one of task {kind}")
    if not run.finished:
        raise UserError(f"the {role} in {place} has not finished training; run its cdc-keras train command again")
    class_names = tuple(run.notes()["data"]["classes"])
    if config.task == "extractor" and kind != "classifier":
        network, sha256_of_weights = _extractor_of_run(run, config, precision)
    else:
        network, sha256_of_weights = load_trainer(run, precision).network, sha256(run.checkpoint(run.steps()[-1]))
    return Trained(network, config, class_names, sha256_of_weights)


def load_context(config):
    """Returns the `Trained` extractor that gates the classifier of a config, in its precision.

    Args:
        config: a `RunConfig`. Under gate_context=untrained the network has initial weights, drawn by the config's seed;
            what else is known is that of the trained one, in whose form it is built. Under gate_spread it gives [T, V],
            in float32.

    Raises:
        UserError: as for `load_trained`; under gate_spread, it has no decoder that is told the category.
    """
    trained = _context(config.extractor, config.precision, config.gate_spread)
    if config.gate_context != "untrained":
        return trained
    random.seed(f"context {config.seed}")  # Keras draws the seeds of initial weights from it
    categories = len(trained.class_names) if config.gate_spread else None
    network = untrained_extractor(in_precision(trained.config, config.precision), categories)
    return dataclasses.replace(trained, network=network)


def _context(place, precision, spread):
    """Returns the `Trained` extractor of a place, its network with V if `spread`."""
    trained = load_trained(place, "extractor", precision="float32" if spread else precision)
    if not spread:
        return trained
    _check_told(place, trained, "V")
    return dataclasses.replace(trained, network=spread_extractor(trained.network, load_decoder(place)))


def load_teacher(config, class_names):
    """Returns the `Trained` classifier whose attention is transferred, in the student's precision.

    Args:
        config: of the student; it names the teacher.
        class_names: the student's.

    Raises:
        UserError: that is no finished classifier of the same images and categories.
    """
    place = config.teacher
    teacher = load_trained(place, "classifier", role="teacher", precision=config.precision)
    _check_alike(f"the teacher {place}", teacher, config, class_names)
    return teacher


def load_painter(config, class_names):
    """Returns ((extractor, its decoder), sha256) of what paints a classifier's images anew, in float32.

    Args:
        config: of the classifier; it names them.
        class_names: the classifier's.

    Raises:
        UserError: they are not there, of other images or categories, or the decoder is told no category.
    """
    place = config.painter or config.extractor
    trained = load_trained(place, "extractor", role="painter")
    _check_alike(f"the painter {place}", trained, config, class_names)
    _check_told(place, trained, "counterfactual_share")
    return (trained.network, load_decoder(place)), trained.sha256


def _check_alike(whose, trained, config, class_names):
    if trained.config.image_size != config.image_size:
        raise UserError(
            f"{whose} sees images of {trained.config.image_size} px, the classifier of {config.image_size} px; train "
            "both at one size"
        )
    if trained.class_names != tuple(class_names):
        raise UserError(f"{whose} was trained on other categories than {config.dataset} has")


def _check_told(place, trained, what):
    if trained.config.classifies or trained.config.context == "gm":
        raise UserError(f"{place} has no decoder that is told the category, which {what} needs; take a cgm or a cdcgm")


def untrained_model(config, num_classes, run, steps_per_epoch, extractor=None, teacher=None, painting=None):
    """Returns the untrained model of a run, see `trainers.build.build`.

    Args:
        config: the run's resolved `RunConfig`.
        num_classes: number of categories.
        run: the `RunFolder`. Once it has checkpoints, they hold the extractor's weights.
        steps_per_epoch: for the schedules.
        extractor, teacher: `Trained`s of a run that starts or goes on; none for a model that is only evaluated.
        painting: (encoder, decoder) of one that paints its images; likewise.
    """
    pairs = None
    if config.teacher is not None:

        def pairs(network):
            if teacher is None:
                return run.notes()["transfer"]
            ends = map(registry.groups, (network, teacher.network))
            return pair_by_resolution(network, next(ends), teacher.network, next(ends))

    if config.gated and config.gate_attention and extractor is None:
        stored = RunConfig.from_json(run.extractor_config.read_text(encoding="utf-8"))
        categories = run.notes()["extractor_categories"] if config.gate_spread else None
        extractor = untrained_extractor(in_precision(stored, config.precision), categories)
    elif extractor is not None:
        extractor = extractor.network
    network = teacher and teacher.network
    return build(
        config, num_classes, steps_per_epoch, extractor=extractor, teacher=network, pairs=pairs, painting=painting
    )


@keras_defaults()
def load_trainer(run, precision="float32"):
    """Returns the model of a run folder, `Disentangler` or `Classifier`, at its newest checkpoint; not to train on.

    Args:
        run: a `RunFolder`.
        precision: to compute in, one of `choices.PRECISIONS`.

    Raises:
        UserError: there is no checkpoint, or it is damaged or of another network.
    """
    config, notes = in_precision(run.config(), precision), run.notes()
    if not run.steps():
        raise UserError(f"{run.path} has no checkpoint yet; let cdc-keras train finish an epoch first")
    model = untrained_model(config, len(notes["data"]["classes"]), run, notes["steps_per_epoch"])
    if config.classifies:
        model.compile()  # without optimizer: loss scaling gives its state another form in the checkpoint
    run.check_fingerprint(model)
    run.load_checkpoint(model)
    return model


def load_disentangler(place):
    """Returns the trained `Disentangler` of an extractor.

    Args:
        place: path of a run of an extraction network, or "zoo:<name>" of an extractor's record that has one.

    Raises:
        UserError: it is damaged, or not there.
    """
    name = record_name(place)
    if name is not None:
        return loading.load_disentangler(*loading.find(name))
    return load_trainer(RunFolder(place))


def load_decoder(place):
    """Returns the trained decoder of an extractor: [T (B, h, h, C), condition (B, N)] -> images; a GM's takes T alone.

    Args:
        place: path of a run of an extraction network, or "zoo:<name>" of an extractor's record that has one.

    Raises:
        UserError: it is damaged, or not there.
    """
    name = record_name(place)
    return load_disentangler(place).decoder if name is None else loading.load_decoder(*loading.find(name))


def _extractor_of_run(run, config, precision):
    """Returns (extractor, sha256 of its weights) of a finished run."""
    weights = run.extractor_weights
    noted = run.notes()["extractor_sha256"]
    if not weights.is_file() or sha256(weights) != noted:
        raise UserError(f"{weights} is not the file the run wrote (sha256 differs); train it again")
    extractor = untrained_extractor(in_precision(config, precision))
    load_weights(extractor, weights)
    return extractor, noted


def _from_zoo(name, kind, role, precision):
    zoo, folder, record = loading.find(name)
    if kind not in (None, record.kind):
        raise UserError(f"the {role} zoo:{name} is a record of kind {record.kind}; give one of kind {kind}")
    network = loading.load_network(zoo, folder, record, precision)
    preset_sha256 = sha256(zoo.path / folder / loading.PRESET)  # where it was read from
    return Trained(network, record.run_config(), record.class_names, record.weights.sha256, preset_sha256)
