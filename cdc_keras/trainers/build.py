"""From a configuration to the model it says, in the precision it says."""

import dataclasses
import random
import re

import keras

from cdc_keras.devices import distribution
from cdc_keras.devices.precision import policy
from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.networks import autoencoder, graph, registry
from cdc_keras.networks.spread import spread_extractor
from cdc_keras.trainers import optimizers
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.counterfactual import CounterfactualDisentangler
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.trainers.distillation import AttentionTransfer, resolution
from cdc_keras.trainers.painting import painter
from cdc_keras.trainers.settings import Settings

RESOLUTION = re.compile(r"(\d+)x\1")


def build(config, num_classes, steps_per_epoch, *, extractor=None, teacher=None, pairs=None, painting=None):
    """Returns the compiled, untrained `Disentangler`, `Classifier` or `AttentionTransfer` of a resolved config.

    Args:
        config: a `RunConfig` without None for image_size, epochs, batch_size and learning_rate.
        num_classes: number of categories.
        steps_per_epoch: for the schedules.
        extractor: functional model that gates the classifier, if its config says so.
        teacher: trained functional classifier whose attention is transferred; none for a model that is only evaluated.
        pairs: with attention transfer, a function of the student's network that returns the pairs of layers.
        painting: (encoder, decoder) that paint a share of a classifier's images, if its config says so.

    Raises:
        UserError: the config asks for what cannot be built, in one sentence.
    """
    random.seed(config.seed)  # from Python's generator Keras draws the seeds of initial weights and dropout
    calls = config.steps_per_call if keras.backend.backend() == "tensorflow" else 1
    if distribution.replicas() > 1:
        calls = 1  # Keras' loop over steps fails in TensorFlow's collectives
    try:
        if not config.classifies:
            model = _disentangler(config, num_classes, steps_per_epoch)
            lengths = [n * steps_per_epoch for n in (config.epochs - config.decoder_epochs, config.decoder_epochs)]
            rate = optimizers.annealed(config.learning_rate, lengths, config.annealing)
            model.compile(config.learning_rate, clip_norm=config.clip_norm, steps_per_execution=calls, annealing=rate)
            return model
        network = classifier(config, num_classes, extractor)
        if config.task == "extractor":
            _features(network, config)  # what will be kept of it exists
        like = {"seed": config.seed}
        if painting is not None:
            like["paint"] = painter(*painting, share=config.counterfactual_share, control=config.counterfactual_control)
        if pairs is None:
            model = Classifier(network, **like)
        else:
            model = AttentionTransfer(network, pairs(network), teacher, config.transfer_weight, **like)
        schedule = optimizers.step_schedule(
            config.learning_rate,
            epochs=config.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=config.warmup_epochs,
            drops=config.learning_rate_drops,
            factor=config.learning_rate_factor,
        )
        optimizer = optimizers.recipe(
            config.recipe,
            schedule,
            gate_decays=config.gate_weight_decay,
            gate_rate_factor=config.gate_learning_rate_factor,
        )
        model.compile(optimizer, steps_per_execution=calls)
        return model
    except ValueError as error:
        raise UserError(str(error)) from error


def classifier(config, num_classes, extractor=None):
    """Returns the network of a classifier, gated as the config says.

    Args:
        config: a resolved `RunConfig`.
        num_classes: number of categories.
        extractor: functional model, images in [-1, 1] -> T, for a gate with attention.
    """
    with policy(config.precision):
        network = _plain_network(config, num_classes)
        if not config.gated:
            return network
        return attach(
            network,
            extractor,
            _sites(config, network, extractor),
            reduction=config.gate_reduction,
            init=config.gate_init,
            residual=config.gate_residual,
            attention=config.gate_attention,
            compatibility=config.gate_compatibility,
            after_relu=config.gate_after_relu,
            shuffle_context=config.gate_context == "shuffled",
        )


def in_precision(config, precision):
    """Returns a run's config for building its networks in another precision; on one device, as float16 demands."""
    return dataclasses.replace(config, precision=precision, strategy="none")


def untrained_extractor(config, spread_over=None):
    """Returns the extractor of a run of task extractor, with initial weights.

    Args:
        config: a resolved `RunConfig`.
        spread_over: the number of categories that it is trained on, if it is to give V beside T, all in float32.
    """
    if spread_over is not None:
        model = untrained_disentangler(in_precision(config, "float32"), spread_over)
        return spread_extractor(model.encoder, model.decoder)
    with policy(config.precision):
        if config.context == "dm":
            return _features(_plain_network(config, num_classes=2), config)  # without the head, any number will do
        return autoencoder.encoder(
            config.image_size,
            context_size=config.context_size,
            context_channels=config.context_channels,
            skip=config.skip,
            noise=config.context_noise,
        )


def untrained_disentangler(config, num_classes):
    """Returns the `Disentangler` of a run of task extractor, uncompiled and with initial weights; not to train.

    It has an encoder, a decoder and D, but none of the players that nobody asks once the training is over.

    Args:
        config: a resolved `RunConfig`, of any context but dm.
        num_classes: number of categories.
    """
    config = dataclasses.replace(config, counterfactual_weight=0.0, critic_weight=0.0)
    return _disentangler(config, num_classes, steps_per_epoch=1)  # which matter in training alone


def extractor_of(model, config):
    """Returns the extractor inside the model of an extractor run: images in [-1, 1] -> T.

    Args:
        model: what `build` returned for `config`.
        config: a `RunConfig` of task extractor; under context dm, the model is a classifier and T the output of its
            group at T's resolution.
    """
    return _features(model.network, config) if config.context == "dm" else model.encoder


def _disentangler(config, num_classes, steps_per_epoch):
    with policy(config.precision):
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(Settings)}
        settings["fool_ramp_steps"] = ramp_steps(config, steps_per_epoch)
        kind = CounterfactualDisentangler if Settings(**settings).beyond_paper else Disentangler
        return kind(config.image_size, num_classes, **settings)


def ramp_steps(config, steps_per_epoch):
    """Returns the number of steps over which lambda_fool rises."""
    if config.fool_ramp_fraction is None:
        return config.fool_ramp_steps
    return round(config.fool_ramp_fraction * config.epochs * steps_per_epoch)


def _plain_network(config, num_classes):
    return registry.build(
        config.network,
        config.image_size,
        num_classes=num_classes,
        block_attention=config.block_attention,
        normalization=config.normalization,
    )


def _sites(config, network, extractor):
    """Returns the names of the layers to gate; by default those at T's resolution and at twice it (A.1)."""
    names = config.gate_sites
    if not names:
        size = extractor.outputs[0].shape[1] if extractor is not None else _context_size(config)
        if size is None:
            raise UserError("give gate_sites: without a context there is no resolution to choose default sites by")
        names = (f"{2 * size}x{2 * size}", f"{size}x{size}")
    sites = []
    for site in names:
        size = RESOLUTION.fullmatch(site)
        layers = registry.sites(network, int(size[1])) if size else [site]
        if not layers:
            ends = _resolutions(network)
            raise UserError(f"no group of {config.network} ends at {site}, to be gated there; {ends}; give gate_sites")
        sites += layers
    return sites


def _resolutions(network):
    tensors = graph.outputs(network)[1]
    return "its groups end at " + ", ".join(resolution(tensors[name]) for name in registry.groups(network))


def _context_size(config):
    return config.context_size or autoencoder.CONTEXT_SIZES.get(config.image_size)


def _features(network, config):
    """Returns the part of a classifier that ends with its group at T's resolution (DM of Table 1)."""
    size = _context_size(config)
    rebuilt, tensors = graph.outputs(network)
    for name in registry.groups(network):
        if tensors[name].shape[1] == size:
            return keras.Model(rebuilt.inputs[0], tensors[name], name="encoder")
    ends = _resolutions(network)
    raise UserError(f"no group of {config.network} ends at T's resolution, {size}; {ends}; give context_size")
