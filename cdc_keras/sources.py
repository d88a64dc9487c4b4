"""Trained models by where they are: a run folder, or a record of the zoo, "zoo:<name>".

They compute in float32, in whatever precision they were trained, unless a run that trains takes them into its own.
"""

import dataclasses
import random

import keras

from cdc_keras import models, networks
from cdc_keras.config import RunConfig
from cdc_keras.distillation import pair_by_resolution
from cdc_keras.errors import UserError
from cdc_keras.runs import RunFolder, load_weights, sha256

ZOO = "zoo:"


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained network and what is known of it.

    Attributes:
        network: functional model.
        config: the `RunConfig` it was trained with.
        classes: names of its categories.
        sha256: of the file its weights came from.
        record_sha256: of preset.json, for a record of the zoo.
    """

    network: keras.Model
    config: RunConfig
    classes: tuple[str, ...]
    sha256: str
    record_sha256: str | None = None


def open_source(source):
    """Returns the `Source` of a trained extractor or classifier.

    Args:
        source: path of a finished run, or "zoo:<name>".

    Raises:
        UserError: it is neither, or it is damaged.
    """
    if str(source).startswith(ZOO):
        return _from_zoo(source)
    opened = {"extractor": open_extractor, "classifier": open_classifier}
    return opened[RunFolder(source).config().task](source)


def load_extractor(source):
    """Returns the trained extractor, a functional model: images in [-1, 1] -> T, in float32.

    Args:
        source: path of a finished extractor run, or "zoo:<name>".

    Raises:
        UserError: it is no finished extractor, or its weights are damaged.
    """
    return open_extractor(source).network


def open_extractor(source, precision="float32"):
    """Returns the `Source` of a trained extractor.

    Args:
        source: path of a finished extractor run, or "zoo:<name>".
        precision: to compute in, one of `numerics.PRECISIONS`.

    Raises:
        UserError: it is no finished extractor, or its weights are damaged.
    """
    if str(source).startswith(ZOO):
        return _from_zoo(source, "extractor", precision)
    run = RunFolder(source)
    config = run.config()
    if config.task != "extractor":
        raise UserError(f"{source} is a run of task {config.task}; the gate needs one of task extractor")
    if not run.finished or not run.extractor_weights.is_file():
        raise UserError(f"the extractor in {source} has not finished training; run its train.py command again")
    record = run.read_record()
    if sha256(run.extractor_weights) != record["extractor_sha256"]:
        raise UserError(f"{run.extractor_weights} is not the file the run wrote (sha256 differs); train it again")
    extractor = models.untrained_extractor(models.in_precision(config, precision))
    load_weights(extractor, run.extractor_weights)
    return Source(extractor, config, tuple(record["data"]["classes"]), record["extractor_sha256"])


def open_context(config):
    """Returns the `Source` of the extractor that gates the classifier of a config, in its precision.

    Args:
        config: a `RunConfig`. Under gate_context=untrained the network has initial weights, drawn by the config's seed;
            what else is known is that of the trained one, in whose form it is built.

    Raises:
        UserError: as for `open_extractor`.
    """
    source = open_extractor(config.extractor, config.precision)
    if config.gate_context != "untrained":
        return source
    random.seed(f"context {config.seed}")  # Keras draws the seeds of initial weights from it
    network = models.untrained_extractor(models.in_precision(source.config, config.precision))
    return dataclasses.replace(source, network=network)


def open_teacher(source, config, classes):
    """Returns the `Source` of the trained classifier whose attention is transferred, in the student's precision.

    Args:
        source: path of a finished classifier run, or "zoo:<name>".
        config: of the student.
        classes: the student's class names.

    Raises:
        UserError: that is no finished classifier of the same images and categories.
    """
    teacher = open_classifier(source, "teacher", config.precision)
    if teacher.config.image_size != config.image_size:
        raise UserError(
            f"the teacher {source} sees images of {teacher.config.image_size} px, the student of {config.image_size} "
            "px; train both at one size"
        )
    if teacher.classes != tuple(classes):
        raise UserError(f"the teacher {source} was trained on other categories than {config.dataset} has")
    return teacher


def open_classifier(source, role="classifier", precision="float32"):
    """Returns the `Source` of a trained classifier.

    Args:
        source: path of a finished classifier run, or "zoo:<name>".
        role: what it is needed as, for messages.
        precision: to compute in, one of `numerics.PRECISIONS`.

    Raises:
        UserError: that is no finished classifier.
    """
    if str(source).startswith(ZOO):
        return _from_zoo(source, "classifier", precision)
    run = RunFolder(source)
    if not run.config().classifies:
        raise UserError(f"the {role} {source} is a run of task {run.config().task}; give a classifier's")
    if not run.finished:
        raise UserError(f"the {role} in {source} has not finished training; run its train.py command again")
    network, classes = load_model(run, precision).network, run.read_record()["data"]["classes"]
    return Source(network, run.config(), tuple(classes), sha256(run.checkpoint(run.steps()[-1])))


def build(config, classes, run, steps_per_epoch, extractor=None, teacher=None):
    """Returns the untrained model of a run, see `models.build`.

    Args:
        config: the run's resolved `RunConfig`.
        classes: number of categories.
        run: the `RunFolder`. Once it has checkpoints, they hold the extractor's weights.
        steps_per_epoch: for the schedules.
        extractor, teacher: `Source`s of a run that starts or goes on; none for a model that is only evaluated.
    """
    pairs = None
    if config.teacher is not None and teacher is not None:
        ours, theirs = networks.groups(config.network), networks.groups(teacher.config.network)
        pairs = lambda network: pair_by_resolution(network, ours, teacher.network, theirs)  # noqa: E731
    elif config.teacher is not None:
        pairs = lambda network: run.read_record()["transfer"]  # noqa: E731
    if config.gated and config.gate_attention and extractor is None:
        stored = RunConfig.from_json(run.extractor_config.read_text())
        extractor = models.untrained_extractor(models.in_precision(stored, config.precision))
    elif extractor is not None:
        extractor = extractor.network
    return models.build(
        config, classes, steps_per_epoch, extractor=extractor, teacher=teacher and teacher.network, pairs=pairs
    )


def load_model(run, precision="float32"):
    """Returns the model of a run folder, `Disentangler` or `Classifier`, at its newest checkpoint; not to train on.

    Args:
        run: a `RunFolder`.
        precision: to compute in, one of `numerics.PRECISIONS`.

    Raises:
        UserError: there is no checkpoint, or it is damaged or of another network.
    """
    config, record = models.in_precision(run.config(), precision), run.read_record()
    if not run.steps():
        raise UserError(f"{run.path} has no checkpoint yet; let train.py finish an epoch first")
    model = build(config, len(record["data"]["classes"]), run, record["steps_per_epoch"])
    if config.classifies:
        model.compile()  # without optimizer: loss scaling gives its state another form in the checkpoint
    run.check_fingerprint(model)
    run.load_checkpoint(model)
    return model


def open_disentangler(source):
    """Returns the trained `Disentangler` of an extractor.

    Args:
        source: path of a run of an extraction network, or "zoo:<name>" of an extractor's record that has one.

    Raises:
        UserError: it is damaged, or not there.
    """
    if str(source).startswith(ZOO):
        from cdc_keras.zoo import network as released

        return released.load_disentangler(*released.find(str(source).removeprefix(ZOO)))
    return load_model(RunFolder(source))


def _from_zoo(source, kind=None, precision="float32"):
    from cdc_keras.zoo import network as released  # which makes its records of run folders, and so imports this module

    zoo, name, record = released.find(str(source).removeprefix(ZOO))
    if kind not in (None, record.kind):
        raise UserError(f"the record {source} is of kind {record.kind}; give one of kind {kind}")
    network = released.load_network(zoo, name, record, precision)
    preset = sha256(zoo.path / name / released.PRESET)  # where it was read from
    return Source(network, record.run_config(), record.classes, record.weights.sha256, preset)
