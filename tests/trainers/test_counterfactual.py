"""The counterfactual recipe: noise in T, and players who look at what is decoded under another category."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_runs import EXTRACTOR

from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.networks import autoencoder
from cdc_keras.runs.trained import load
from cdc_keras.runs.training import train
from cdc_keras.trainers import counterfactual
from cdc_keras.trainers.build import build as build_run
from cdc_keras.trainers.counterfactual import CounterfactualDisentangler
from cdc_keras.trainers.disentangler import Disentangler

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (6, 32, 32, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 1, 2], "int32")
RECIPE = {
    "conditioning": "film",
    "decoder_blocks": 1,
    "context_channels": 8,
    "context_noise": 0.5,
    "prior_weight": 1e-3,
    "counterfactual_weight": 1.0,
    "cycle_weight": 1.0,
    "critic_weight": 1.0,
    "repulsive_weight": 0.0,
    "fool_weight": 1.0,
    "fool_ramp_steps": 2,
    "discriminator_width": 8,
}
WITHOUT = {"counterfactual_weight": 0.0, "cycle_weight": 0.0, "critic_weight": 0.0}


def build(step=1, **settings):
    keras.utils.set_random_seed(0)
    model = CounterfactualDisentangler(32, 4, **(RECIPE | settings))
    model.compile()
    model.steps.assign(step)
    return model


def values(variables):
    return [v.numpy() for v in variables]


def moved(variables, before):
    return [v.path for v, value in zip(variables, before, strict=True) if (v.numpy() != value).any()]


def without_seeds(variables):
    return [v for v in variables if "seed" not in v.path]


@pytest.fixture(scope="module")
def model():
    return build()


def test_every_player_moves_its_own_weights_and_no_others(model):
    for step, player in (
        (model._update_discriminator, "discriminator"),
        (model._update_image_classifier, "image_classifier"),
        (model._update_critic, "critic"),
        (model._update_autoencoder, "autoencoder"),
    ):
        own = [v for network in model.networks()[player] for v in without_seeds(network.variables)]
        others = [
            v
            for name, networks in model.networks().items()
            if name != player
            for network in networks
            for v in without_seeds(network.variables)
        ]
        own_before, others_before = values(own), values(others)
        step(IMAGES, LABELS)
        assert len(moved(own, own_before)) > 0.95 * len(own), player
        assert not moved(others, others_before), player


@pytest.mark.parametrize(("size", "block", "seen"), [(32, 1, 32), (128, 2, 64), (224, 4, 56)])
def test_both_classifiers_see_the_means_of_blocks_of_large_images(size, block, seen):
    model = CounterfactualDisentangler(size, 4, **RECIPE)
    for network in (model.image_classifier, model.critic):
        assert network.input_shape[1:] == (seen, seen, 3)
    images = RNG.uniform(-1, 1, (2, size, size, 3)).astype("float32")
    means = images.reshape(2, seen, block, seen, block, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(model._seen(tf.constant(images)), means, atol=1e-6)


def test_a_step_at_128_pixels_moves_every_player():
    model = CounterfactualDisentangler(128, 4, **RECIPE)
    model.compile()
    before = {name: values(model._variables_of(name)) for name in model.networks()}
    metrics = model.update(RNG.uniform(-1, 1, (2, 128, 128, 3)).astype("float32"), LABELS[:2])
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    for name, was in before.items():
        assert moved(model._variables_of(name), was), name


def test_the_optimizers_share_all_weights_between_them(model):
    of_players = [v for name in model.networks() for v in model._variables_of(name)]
    assert len(of_players) == len({id(v) for v in of_players}) == len(model.trainable_variables)
    assert set(vars(model.player)) == {"autoencoder", "discriminator", "image_classifier", "critic"}


def test_the_statistics_are_those_of_real_images_under_their_own_category():
    model, twin = build(), build(**WITHOUT)
    for x in (model, twin):
        x._update_autoencoder(IMAGES, LABELS)
    of_model, of_twin = (
        [v for n in (x.encoder, x.decoder) for v in n.non_trainable_variables if "moving" in v.path]
        for x in (model, twin)
    )
    assert len(of_model) > 20
    for a, b in zip(of_model, of_twin, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6, err_msg=a.path)


def test_the_prior_is_half_the_squared_length_of_t_without_noise(model):
    mean = RNG.normal(size=(3, 8, 8, 8)).astype("float32")
    _, metrics = build(**WITHOUT)._more_losses(IMAGES[:3], mean, LABELS[:3])
    np.testing.assert_allclose(metrics["prior_loss"], (mean**2).sum() / 3 / 2, rtol=1e-5)
    assert set(metrics) == {"prior_loss"}


def test_the_losses_add_up_by_their_weights_and_rise_with_the_ramp(monkeypatch):
    model = build(step=1)  # half of the ramp
    mean = model._both(IMAGES)[0]
    total, metrics = model._more_losses(IMAGES, mean, LABELS)
    expected = (
        1e-3 * metrics["prior_loss"]
        + metrics["cycle_loss"]
        + 0.5 * sum(metrics[name] for name in ("counterfactual_loss", "critic_loss"))
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_the_judge_is_asked_for_another_category(monkeypatch):
    model, asked = build(cycle_weight=0.0), []
    monkeypatch.setattr(model, "condition", lambda labels: asked.append(np.array(labels)) or tf.one_hot(labels, 4))
    for _ in range(20):
        model._more_losses(IMAGES, model._both(IMAGES)[0], LABELS)
    assert all((others != LABELS).all() for others in asked)
    assert {int(x) for others in asked for x in others} == {0, 1, 2, 3}


def test_the_cycle_loss_moves_encoder_and_decoder_and_no_statistics():
    model = build(prior_weight=0.0, counterfactual_weight=0.0, critic_weight=0.0)
    variables = model.autoencoder_variables
    with tf.GradientTape() as tape:
        tape.watch([v.value for v in variables])
        mean = model._both(IMAGES)[0]
        statistics = values(without_seeds(model.non_trainable_variables))
        total, _ = model._more_losses(IMAGES, mean, LABELS)
    assert not moved(without_seeds(model.non_trainable_variables), statistics)
    gradients = tape.gradient(total, [v.value for v in variables])
    reached = {v.path for v, g in zip(variables, gradients, strict=True) if g is not None and np.any(g)}
    assert {v.path for v in variables} == reached


def test_the_cycle_loss_is_the_error_of_the_image_decoded_under_its_own_category_again(monkeypatch):
    """Where painted images are encoded as what was painted, and decoding gives T back, it is the noise between."""
    model, conditions = build(), []
    monkeypatch.setattr(model, "_both", lambda images, training: (images, images))
    monkeypatch.setattr(model, "decode", lambda context, condition, **_: conditions.append(condition) or context)
    loss = float(model._cycle_loss(IMAGES, IMAGES, LABELS))
    np.testing.assert_allclose(loss, counterfactual.CRITIC_NOISE**2, rtol=0.05)
    np.testing.assert_array_equal(np.argmax(conditions[0], axis=-1), LABELS)
    again = float(model._cycle_loss(IMAGES, IMAGES + 0.5, LABELS))
    np.testing.assert_allclose(again, 0.25 + counterfactual.CRITIC_NOISE**2, rtol=0.05)


def test_the_noise_of_t_has_its_deviation_in_inference_too_and_is_new_in_every_call():
    encoder = autoencoder.encoder(32, context_channels=16, noise=0.5)
    mean = autoencoder.mean_encoder(encoder)(IMAGES, training=False)
    first, second = (np.asarray(encoder(IMAGES, training=False)) for _ in range(2))
    assert np.std(first - mean) == pytest.approx(0.5, rel=0.05)
    assert abs(np.mean((first - mean) * (second - mean))) < 0.02


def test_t_without_noise_is_the_papers():
    encoder = autoencoder.encoder(32)
    assert autoencoder.mean_encoder(encoder) is encoder


@pytest.mark.parametrize("blocks", [0, 2])
def test_film_starts_as_a_shift_and_every_category_decodes_otherwise(blocks):
    decoder = autoencoder.decoder(32, (8, 8, 8), num_classes=12, conditioning="film", blocks=blocks)
    scales = [w for layer in decoder.layers if layer.name.endswith("_scale") for w in layer.weights]
    assert scales and not any(np.any(w) for w in map(np.asarray, scales))
    assert sum(layer.name.endswith("_shift") for layer in decoder.layers) == 3 + 2 * blocks
    context = RNG.normal(size=(1, 8, 8, 8)).astype("float32")
    images = [np.asarray(decoder([context, np.eye(12, dtype="float32")[[k]]])) for k in range(3)]
    assert np.any(images[0] != images[1]) and np.any(images[1] != images[2])


def test_a_config_builds_what_it_says():
    config = RunConfig(context="cgm", conditioning="film", context_noise=1.0, prior_weight=1e-6).resolved(32)
    model = build_run(config, 4, 10)
    assert isinstance(model, CounterfactualDisentangler) and set(model.networks()) == {"autoencoder"}
    assert set(model.update(IMAGES, LABELS)) >= {"reconstruction_loss", "prior_loss"}
    assert type(build_run(RunConfig().resolved(32), 4, 10)) is Disentangler


def test_players_need_a_decoder_that_is_told_the_category():
    with pytest.raises(UserError, match="counterfactual_weight need a decoder that is told the category"):
        RunConfig(context="gm", counterfactual_weight=0.1)


def test_the_critic_is_asked_for_the_category_that_an_image_had(monkeypatch):
    model = build()
    seen = []
    monkeypatch.setattr(model, "_moved", lambda player, loss: seen.append((player, loss())) or 0.25)
    model._update_critic(IMAGES, LABELS)
    (player, (value, accuracy)), *_ = seen
    assert player == "critic" and 0 <= float(accuracy) <= 1 and float(value) > 0
    assert float(model.trackers["critic_accuracy"].result()) == 0.25


def test_the_autoencoder_alone_slows_down():
    config = RunConfig(epochs=4, learning_rate=0.01, annealing=0.5).resolved(32)
    players = vars(build_run(config, 4, 10).player)
    rates = {name: optimizer._learning_rate for name, optimizer in players.items()}
    assert float(rates["autoencoder"](30)) == pytest.approx(0.005)
    assert float(rates["discriminator"]) == pytest.approx(0.01)


def test_d_may_go_without_dropout():
    rates = {}
    for dropout in (0.3, 0.0):
        model = build_run(RunConfig(discriminator_dropout=dropout).resolved(32), 4, 10)
        rates[dropout] = {layer.rate for layer in model.discriminator.layers if "dropout" in layer.name}
    assert rates == {0.3: {0.3}, 0.0: {0.0}}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_d_sees_a_share_of_the_noise_where_it_learns_and_where_it_is_fooled(share, monkeypatch):
    model, made, seen = build(discriminator_noise=share), [], []
    encoded, discriminate = model._encoded, model.discriminate

    def tapped(images, training):
        made.append(encoded(images, training))
        return made[-1]

    monkeypatch.setattr(model, "_encoded", tapped)
    monkeypatch.setattr(model, "discriminate", lambda t, training=False: seen.append(t) or discriminate(t, training))
    model._update_discriminator(IMAGES, LABELS)
    model._update_autoencoder(IMAGES, LABELS)
    assert len(made) == len(seen) == 2
    for (context, _, mean), given in zip(made, seen, strict=True):
        assert np.std(context - mean) == pytest.approx(RECIPE["context_noise"], rel=0.05)
        np.testing.assert_allclose(given, mean + share * (context - mean), rtol=1e-5, atol=1e-5)


def test_a_frozen_encoder_stays_as_it_is_and_everybody_else_goes_on():
    model = build()
    before = {v.path: v.numpy() for v in model.variables}
    model.freeze_encoder()
    for _ in range(3):
        model.update(IMAGES, LABELS)
    after = {v.path: v.numpy() for v in model.variables}
    still = {path for path, value in before.items() if np.array_equal(value, after[path])}
    of_encoder = {v.path for v in without_seeds(model.encoder.variables)}
    assert of_encoder <= still
    for name, networks in model.networks().items():
        weights = {v.path for network in networks for v in network.trainable_variables} - of_encoder
        assert len(weights - still) > 0.9 * len(weights), name
    moving = {v.path for v in model.decoder.non_trainable_variables if "moving" in v.path}
    assert moving and not moving & still


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_may_let_the_decoder_learn_alone_at_its_end(epochs, tmp_path):
    config = dataclasses.replace(EXTRACTOR, context="cgm", epochs=epochs, decoder_epochs=1, annealing=0.5)
    run = train(config, tmp_path / "run", pictures=False)
    fresh = build_run(config.resolved(32), 10, 4).encoder
    found = load(run.path)
    alike = [(a.numpy() == b.numpy()).all() for a, b in zip(fresh.weights, found.weights, strict=True)]
    assert all(alike) if epochs == 1 else not any(alike[:1])
