"""From a configuration to the model it says, and back from a run folder to a trained network."""

import random
import re

import keras

from cdc_keras import gating, graph, networks, optimizers
from cdc_keras.classifier import Classifier
from cdc_keras.config import RunConfig
from cdc_keras.disentangler import Disentangler
from cdc_keras.distillation import AttentionTransfer, pair_by_resolution, resolution
from cdc_keras.errors import UserError
from cdc_keras.networks import autoencoder
from cdc_keras.runs import RunFolder, load_weights, sha256

RESOLUTION = re.compile(r"(\d+)x\1")


def build(config, classes, run, steps_per_epoch, teacher=None):
    """Returns the compiled, untrained `Disentangler`, `Classifier` or `AttentionTransfer` of a resolved config.

    Args:
        config: a `RunConfig` without None for image_size, epochs, batch_size and learning_rate.
        classes: number of categories.
        run: the `RunFolder`; only read.
        steps_per_epoch: for the schedules.
        teacher: trained network whose attention is transferred; a model that is only evaluated needs none.

    Raises:
        UserError: the config asks for what can not be built, in one sentence.
    """
    random.seed(config.seed)  # from Python's generator Keras draws the seeds of initial weights and dropout
    calls = config.steps_per_call if keras.backend.backend() == "tensorflow" else 1
    try:
        if not config.classifies:
            model = _disentangler(config, classes, steps_per_epoch)
            model.compile(config.learning_rate, clip_norm=config.clip_norm, steps_per_execution=calls)
            return model
        network = _network(config, classes, run)
        if config.task == "extractor":
            _features(network, config)  # what will be kept of it exists
        if config.teacher is None:
            model = Classifier(network)
        else:
            model = AttentionTransfer(network, _pairs(config, network, run, teacher), teacher, config.transfer_weight)
        schedule = optimizers.step_schedule(
            config.learning_rate,
            epochs=config.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=config.warmup_epochs,
            drops=config.learning_rate_drops,
            factor=config.learning_rate_factor,
        )
        model.compile(optimizers.recipe(config.recipe, schedule), steps_per_execution=calls)
        return model
    except ValueError as error:
        raise UserError(str(error)) from error


def load_model(run):
    """Returns the model of a run folder, `Disentangler` or `Classifier`, at its newest checkpoint.

    Args:
        run: a `RunFolder`.

    Raises:
        UserError: there is no checkpoint, or it is damaged or of another network.
    """
    steps = run.steps()
    if not steps:
        raise UserError(f"{run.path} has no checkpoint yet; let train.py finish an epoch first")
    record = run.read_record()
    model = build(run.config(), len(record["data"]["classes"]), run, record["steps_per_epoch"])
    run.check_fingerprint(model)
    load_weights(model, run.checkpoint(steps[-1]))
    return model


def load_extractor(run_dir):
    """Returns the trained extractor of a run folder: a functional model, images in [-1, 1] -> T.

    Args:
        run_dir: path of a finished extractor run.

    Raises:
        UserError: it is no finished extractor run, or its weights are damaged.
    """
    run = RunFolder(run_dir)
    config = run.config()
    if config.task != "extractor":
        raise UserError(f"{run_dir} is a run of task {config.task}; the gate needs one of task extractor")
    if not run.finished or not run.extractor_weights.is_file():
        raise UserError(f"the extractor in {run_dir} has not finished training; run its train.py command again")
    if sha256(run.extractor_weights) != run.read_record()["extractor_sha256"]:
        raise UserError(f"{run.extractor_weights} is not the file the run wrote (sha256 differs); train it again")
    extractor = _untrained_extractor(config)
    load_weights(extractor, run.extractor_weights)
    return extractor


def extractor_of(model, config):
    """Returns the extractor inside the model of an extractor run: images in [-1, 1] -> T.

    Args:
        model: what `build` returned for `config`.
        config: a `RunConfig` of task extractor; under context dm, the model is a classifier and T the output of its
            group at T's resolution.
    """
    return _features(model.network, config) if config.context == "dm" else model.encoder


def load_teacher(config, classes):
    """Returns (the trained classifier whose attention is transferred, sha256 of its checkpoint).

    Args:
        config: of the student; its `teacher` is the path of a finished run folder.
        classes: the student's class names.

    Raises:
        UserError: that is no finished classifier of the same images and categories.
    """
    run = RunFolder(config.teacher)
    theirs = run.config()
    if not theirs.classifies:
        raise UserError(f"the teacher {run.path} is a run of task {theirs.task}; give a classifier's")
    if not run.finished:
        raise UserError(f"the teacher in {run.path} has not finished training; run its train.py command again")
    if theirs.image_size != config.image_size:
        raise UserError(
            f"the teacher {run.path} sees images of {theirs.image_size} px, the student of {config.image_size} px; "
            "train both at one size"
        )
    if run.read_record()["data"]["classes"] != list(classes):
        raise UserError(f"the teacher {run.path} was trained on other categories than {config.dataset} has")
    return load_model(run), sha256(run.checkpoint(run.steps()[-1]))


def _disentangler(config, classes, steps_per_epoch):
    return Disentangler(
        config.image_size,
        classes,
        context=config.context,
        context_size=config.context_size,
        skip=config.skip,
        fool_weight=config.fool_weight,
        fool_ramp_steps=ramp_steps(config, steps_per_epoch),
        fool_loss=config.fool_loss,
        repulsive_weight=config.repulsive_weight,
        repulsive_delta=config.repulsive_delta,
        repulsive_norm=config.repulsive_norm,
        discriminator_width=config.discriminator_width,
        seed=config.seed,
    )


def ramp_steps(config, steps_per_epoch):
    """Returns the number of steps over which lambda_fool rises."""
    if config.fool_ramp_fraction is None:
        return config.fool_ramp_steps
    return round(config.fool_ramp_fraction * config.epochs * steps_per_epoch)


def _network(config, classes, run):
    """Returns the classifier's network, gated as the config says, with the trained extractor if the run is new."""
    network = _plain_network(config, classes)
    if not config.gated:
        return network
    extractor = None
    if config.gate_attention and run.steps():  # its weights come with the run's own checkpoints
        extractor = _untrained_extractor(RunConfig.from_json(run.extractor_config.read_text()))
    elif config.gate_attention:
        extractor = load_extractor(config.extractor)
    return gating.attach(
        network,
        extractor,
        _sites(config, network, extractor),
        reduction=config.gate_reduction,
        init=config.gate_init,
        residual=config.gate_residual,
        attention=config.gate_attention,
        compatibility=config.gate_compatibility,
        after_relu=config.gate_after_relu,
        final_relu=config.gate_final_relu,
    )


def _plain_network(config, classes):
    return networks.build(
        config.network,
        config.image_size,
        num_classes=classes,
        block_attention=config.block_attention,
        normalization=config.normalization,
    )


def _sites(config, network, extractor):
    """Returns the names of the layers to gate; by default those at T's resolution and at twice it (A.1)."""
    asked = config.gate_sites
    if not asked:
        size = extractor.output_shape[1] if extractor is not None else _context_size(config)
        if size is None:
            raise UserError("give gate_sites: without a context there is no resolution to choose default sites by")
        asked = (f"{2 * size}x{2 * size}", f"{size}x{size}")
    sites = []
    for site in asked:
        size = RESOLUTION.fullmatch(site)
        found = networks.sites(network, config.network, int(size[1])) if size else [site]
        if not found:
            ends = _resolutions(network, config)
            raise UserError(f"no group of {config.network} ends at {site}, to be gated there; {ends}; give gate_sites")
        sites += found
    return sites


def _resolutions(network, config):
    tensors = graph.outputs(network)[1]
    return "its groups end at " + ", ".join(resolution(tensors[name]) for name in networks.groups(config.network))


def _context_size(config):
    return config.context_size or autoencoder.CONTEXT_SIZES.get(config.image_size)


def _untrained_extractor(config):
    if config.context == "dm":
        return _features(_plain_network(config, classes=2), config)  # the head, which knows the classes, is cut off
    return autoencoder.encoder(config.image_size, context_size=config.context_size, skip=config.skip)


def _features(network, config):
    """Returns the part of a classifier that ends with its group at T's resolution (DM of Table 1)."""
    size = _context_size(config)
    rebuilt, tensors = graph.outputs(network)
    for name in networks.groups(config.network):
        if tensors[name].shape[1] == size:
            return keras.Model(rebuilt.inputs[0], tensors[name], name="encoder")
    ends = _resolutions(network, config)
    raise UserError(f"no group of {config.network} ends at T's resolution, {size}; {ends}; give context_size")


def _pairs(config, network, run, teacher):
    """Returns the pairs of layers for attention transfer."""
    if teacher is None:
        return run.read_record()["transfer"]
    theirs = networks.groups(RunFolder(config.teacher).config().network)
    return pair_by_resolution(network, networks.groups(config.network), teacher, theirs)
