"""What the extractor's own players make of T, and how findings are counted."""

import types

import keras
import numpy as np
import pytest

from cdc_keras.audit import decoding, examination
from cdc_keras.data.dataset import Split
from cdc_keras.data.shapes import shapes
from cdc_keras.networks import autoencoder
from cdc_keras.trainers.disentangler import Disentangler


def test_contexts_are_the_extractors_output():
    extractor = autoencoder.encoder(32)
    images = np.random.default_rng(0).integers(256, size=(7, 32, 32, 3), dtype=np.uint8)
    result = decoding.contexts(extractor, images)
    assert (result.shape, result.dtype) == ((7, 8, 8, 64), np.float32)
    direct = keras.ops.convert_to_numpy(extractor(images / np.float32(127.5) - 1, training=False))
    np.testing.assert_allclose(result, direct, atol=1e-4)  # float32 through eight convolutions


def test_a_real_factor_becomes_six_equally_full_classes():
    hue = np.random.default_rng(0).random(600).astype(np.float32)
    train, test, count = examination._classes(hue, np.float32([0.0, 0.999]))
    assert count == 6 and np.array_equal(np.bincount(train), [100] * 6) and test.tolist() == [0, 5]


def test_another_label_is_any_other_and_equally_likely():
    y = np.repeat(np.arange(4), 3000)
    others = decoding.other_labels(y, 4, seed=0)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (y, others), 1)
    assert not counts.diagonal().any() and counts[~np.eye(4, dtype=bool)].min() > 900


@pytest.mark.parametrize("obeys", [True, False])
def test_the_swap_tells_decoders_that_draw_their_condition(obeys, monkeypatch):
    """Images of one gray value per class; T is the image; the classifier reads the gray value."""
    monkeypatch.setattr(examination, "probe", lambda *a, **k: np.zeros(len(a[2]), int))

    def gray(y):
        return np.repeat(np.asarray(y), 4 * 4 * 3).reshape(-1, 4, 4, 3)

    parts = [Split((50 * gray(y)).astype(np.uint8), y) for y in (np.arange(40) % 4, np.arange(60) % 4)]

    def draw(inputs):
        context, condition = inputs
        return 50 * gray(condition.argmax(-1)) / 127.5 - 1 if obeys else context

    def predicts(function):
        return types.SimpleNamespace(predict_on_batch=function, layers=())

    model = types.SimpleNamespace(
        decoder=predicts(draw),
        adversarial=True,
        discriminate=lambda t: [np.eye(4)[np.zeros(len(t), int)]],
        conditional=True,
        condition=lambda y: np.eye(4)[y],
    )
    classifier = predicts(lambda x: np.eye(4)[np.round((np.asarray(x)[:, 0, 0, 0] + 1) * 127.5 / 50).astype(int)])
    examined = examination.Examination(*parts, parts[0], 4, seed=0)
    examined.run({"context": predicts(np.asarray)}, {"context": model}, classifier)
    found = {(r.target, r.features, r.reader): r.accuracy for r in examined.findings}
    assert found["category", "images", "classifier"] == 1
    assert found["category", "context reconstruction", "classifier"] == 1
    assert found["condition", "context swap", "classifier"] == obeys
    assert found["category", "context swap", "classifier"] == (not obeys)
    assert found["category", "context", "discriminator"] == 0.25
    assert examined.errors["context"]["mean"] == pytest.approx(0, abs=1e-9)


def test_a_reconstruction_error_is_the_mean_square_over_an_image():
    model = Disentangler(32, 10)
    images, y = shapes(5, seed=0).images, np.arange(5)
    context = decoding.contexts(model.encoder, images)
    direct = keras.ops.convert_to_numpy(model(images / np.float32(127.5) - 1, y))
    expected = np.mean((direct - (images / 127.5 - 1)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(decoding.reconstruction_errors(model, images, context, y), expected, rtol=1e-4)


def test_chance_is_the_share_of_the_probes_most_frequent():
    parts = [Split(np.zeros((len(y), 4, 4, 3), np.uint8), np.int32(y)) for y in ([1, 1, 0], [0, 0, 0, 1], [0, 1])]
    examined = examination.Examination(*parts, 2, seed=0)
    examined._add("category", "pixels", "linear", np.int32([0, 0, 0, 0]))
    (finding,) = examined.findings
    assert (finding.chance, finding.accuracy) == (0.25, 0.75)


def test_probes_see_several_draws_of_a_noisy_context(monkeypatch):
    asked = []

    def stub(train, labels, features, **options):
        asked.append((train, labels, len(features)))
        return np.zeros(len(features), int)

    monkeypatch.setattr(examination, "probe", stub)
    train, scored = shapes(30, seed=0), shapes(20, seed=1)
    for noise, draws in ((0.5, 3), (0.0, 1)):
        examined = examination.Examination(train, scored, train, 10, seed=0)
        examined.run({"context": autoencoder.encoder(32, context_channels=4, noise=noise)}, {}, None)
        features, labels, count = asked[0]
        assert (features.shape, count) == ((30 * draws, 8, 8, 4), 20)
        assert np.array_equal(labels, np.tile(train.labels, draws))
        assert len(asked[-1][0]) == 30  # pixels have no noise
        if noise:
            assert not np.array_equal(features[:30], features[30:60])
            np.testing.assert_allclose(features[:30], features[30:60], atol=6)  # ten deviations of the difference
        asked.clear()
