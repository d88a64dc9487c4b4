"""V: against its definition in NumPy, in a network, a gate, a run and an export."""

import dataclasses

import keras
import numpy as np
import pytest
from tiny_runs import CLASSIFIER, EXTRACTOR

from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.networks import autoencoder, registry
from cdc_keras.networks.spread import RelativeSpread, spread_extractor
from cdc_keras.runs.trained import load, load_context, load_trainer
from cdc_keras.runs.training import train

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype("float32")


def networks(num_classes=4, conditioning="film", noise=0.5):
    encoder = autoencoder.encoder(32, context_channels=8, noise=noise)
    decoder = autoencoder.decoder(32, (8, 8, 8), num_classes=num_classes, conditioning=conditioning)
    return encoder, decoder


def defined(encoder, decoder, categories, num_classes):
    """T without noise, and V as its definition says, one category after the other."""
    context = np.asarray(autoencoder.mean_encoder(encoder)(IMAGES, training=False))
    pictures = []
    for category in categories:
        condition = np.zeros((3, num_classes), "float32")
        condition[:, category] = 1
        pictures.append(np.asarray(decoder([context, condition], training=False)))
    deviation = np.std(pictures, axis=0).mean(axis=-1)
    return context, deviation.reshape(3, 8, 4, 8, 4).mean(axis=(2, 4))[..., None]


@pytest.mark.parametrize(("conditioning", "noise"), [("film", 0.5), ("planes", 0.0)])
def test_v_is_the_deviation_of_the_pictures_over_all_categories(conditioning, noise):
    encoder, decoder = networks(conditioning=conditioning, noise=noise)
    context, spread = (np.asarray(x) for x in spread_extractor(encoder, decoder)(IMAGES, training=False))
    expected = defined(encoder, decoder, range(4), 4)
    np.testing.assert_allclose(context, expected[0], atol=1e-6)
    np.testing.assert_allclose(spread, expected[1], rtol=1e-4)
    assert spread.min() > 0


def test_of_many_categories_five_are_taken_evenly():
    encoder, decoder = networks(num_classes=25)
    spread = np.asarray(spread_extractor(encoder, decoder)(IMAGES, training=False)[1])
    expected = defined(encoder, decoder, [0, 5, 10, 15, 20], 25)[1]
    np.testing.assert_allclose(spread, expected, rtol=1e-4)


def test_a_decoder_that_is_told_no_category_has_no_v():
    encoder = autoencoder.encoder(32)
    with pytest.raises(ValueError, match="V needs a decoder that is told the category"):
        spread_extractor(encoder, autoencoder.decoder(32, (8, 8, 64), num_classes=4, conditional=False))


def test_relative_v_is_one_where_v_is_twice_its_mean():
    spread = np.zeros((2, 2, 2, 1), "float32")
    spread[0, 0, 0], spread[1] = 4.0, 3.0
    found = np.asarray(RelativeSpread()(spread))[..., 0]
    np.testing.assert_allclose(found[0], [[1, 0], [0, 0]])
    np.testing.assert_allclose(found[1], 0.5, rtol=1e-6)


@pytest.mark.parametrize("init", ["identity", "spread"])
def test_a_gate_starts_at_v_or_as_the_identity(init, tmp_path):
    extractor = spread_extractor(*networks())
    plain = registry.build("resnet8", 32, num_classes=5)
    gated = attach(plain, extractor, init=init, copy=True)
    pooled = gated.get_layer("gate_context_pool_with_spread").output
    attention = keras.Model(gated.input, [gated.get_layer("gate_attention").output, pooled])
    found, pooled = (np.asarray(x) for x in attention(IMAGES, training=False))
    context, spread = (np.asarray(x) for x in extractor(IMAGES, training=False))
    relative = np.minimum(spread / (2 * spread.mean(axis=(1, 2, 3), keepdims=True)), 1)
    expected = [context.mean(-1, keepdims=True), context.max(-1, keepdims=True), relative]
    np.testing.assert_allclose(pooled, np.concatenate(expected, axis=-1), atol=1e-4)
    np.testing.assert_allclose(found, 1.0 if init == "identity" else 0.2 + 0.8 * relative, atol=1e-4)
    answers = np.asarray(gated(IMAGES, training=False))
    assert np.array_equal(answers, np.asarray(plain(IMAGES, training=False))) == (init == "identity")
    gated.save(tmp_path / "gated.keras")
    again = keras.models.load_model(tmp_path / "gated.keras")
    np.testing.assert_array_equal(np.asarray(again(IMAGES, training=False)), answers)


def test_the_gate_does_not_see_the_noise_of_t():
    encoder, _ = networks()
    gated = attach(registry.build("resnet8", 32, num_classes=5), encoder, init="he")
    first, second = (np.asarray(gated(IMAGES, training=False)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(np.asarray(encoder(IMAGES)), np.asarray(encoder(IMAGES)))


def test_a_gate_cannot_start_at_a_v_that_is_not_there():
    with pytest.raises(ValueError, match="starts M from V, which this extractor does not give"):
        attach(registry.build("resnet8", 32, num_classes=5), autoencoder.encoder(32), init="spread")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of an extractor and of a classifier that is gated by its V, and started from it."""
    folder = tmp_path_factory.mktemp("spread")
    config = dataclasses.replace(EXTRACTOR, conditioning="film", context_channels=8, context_noise=1.0)
    train(config, folder / "extractor", pictures=False)
    gate = {"extractor": str(folder / "extractor"), "gate_spread": True, "gate_init": "spread"}
    run = train(dataclasses.replace(CLASSIFIER, **gate), folder / "gated", pictures=False)
    return folder / "extractor", run


def test_a_run_keeps_the_extractor_and_its_decoder_as_they_were(runs):
    extractor, run = runs
    network = load_trainer(run).network
    given = network.get_layer("extractor").network(IMAGES, training=False)
    for ours, theirs in zip(given, load(extractor, spread=True)(IMAGES, training=False), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    context, spread = given
    assert context.shape == (3, 8, 8, 8) and spread.shape == (3, 8, 8, 1)


def test_the_control_has_a_decoder_with_initial_weights(runs):
    config = dataclasses.replace(runs[1].config(), gate_context="untrained")
    first, second = (load_context(dataclasses.replace(config, seed=seed)).network for seed in (0, 1))
    found = [np.asarray(network(IMAGES, training=False)[1]) for network in (first, second)]
    assert found[0].shape == (3, 8, 8, 1) and not np.array_equal(*found)


def test_an_extractor_without_category_is_refused_in_one_sentence(tmp_path):
    run = train(dataclasses.replace(EXTRACTOR, context="gm"), tmp_path / "gm", pictures=False)
    with pytest.raises(UserError, match="has no decoder that is told the category, which V needs"):
        load(run.path, spread=True)
