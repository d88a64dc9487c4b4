"""Probes against features in which it is known what can be read, and how."""

import keras
import numpy as np
import pytest

from cdc_keras.audit import probes
from cdc_keras.audit.erasure import leace


def features(labels, seed, signal):
    """Noise of 4 channels with `signal` added to the channel of the label."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6, 6, 4)).astype(np.float32)
    return noise + signal * np.eye(4, dtype=np.float32)[labels][:, None, None]


def labels(count, seed):
    return np.random.default_rng(seed).integers(4, size=count)


def score(kind, signal, train_labels=None, **changed):
    train, test = labels(512, 0), labels(200, 1)
    given = train if train_labels is None else train_labels
    arguments = {"kind": kind, "num_classes": 4, "seed": 0} | changed
    return np.mean(probes.probe(features(train, 2, signal), given, features(test, 3, signal), **arguments) == test)


def read(kind, train, train_labels, test, test_labels, num_classes=2):
    found = probes.probe(train, train_labels, test, kind=kind, num_classes=num_classes, seed=0)
    return np.mean(found == test_labels)


@pytest.mark.parametrize("kind", probes.PROBES)
def test_a_probe_reads_the_signal_and_nothing_by_shuffled_labels(kind):
    assert score(kind, 1.0) > 0.9
    assert abs(score(kind, 1.0, train_labels=labels(512, 9)) - 0.25) < 0.15  # 200 test images: one sigma is 0.03


def test_only_the_conv_probe_reads_texture_that_averages_out():
    def stripes(y, seed):
        image = np.random.default_rng(seed).normal(size=(len(y), 8, 8, 1)).astype(np.float32)
        lines = np.where(np.arange(8) % 2, 1.0, -1.0)
        pattern = np.where(y[:, None, None] == 1, lines[:, None], lines[None, :])
        return image + 1.5 * pattern[..., None].astype(np.float32)

    train, test = labels(512, 0) % 2, labels(200, 1) % 2
    scores = {kind: read(kind, stripes(train, 2), train, stripes(test, 3), test) for kind in ("linear", "conv")}
    assert scores["conv"] > 0.9 and scores["linear"] < 0.65


def test_products_are_read_by_knn_and_mlp_not_linearly():
    def xor(count, seed):
        rng = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], size=(count, 1, 1, 2))
        return (signs + 0.2 * rng.normal(size=signs.shape)).astype(np.float32), (signs.prod(axis=-1) > 0).ravel() * 1

    (train, train_labels), (test, test_labels) = xor(512, 0), xor(200, 1)
    scores = {kind: read(kind, train, train_labels, test, test_labels) for kind in ("linear", "knn", "mlp")}
    assert scores["knn"] > 0.95 and scores["mlp"] > 0.95 and abs(scores["linear"] - 0.5) < 0.15


def test_erasure_blinds_the_linear_probe_but_not_the_conv():
    def signal(y, seed):  # the category moves channel 0 and widens channel 1
        noise = np.random.default_rng(seed).normal(size=(len(y), 4, 4, 2))
        y = y[:, None, None]
        return np.stack([noise[..., 0] + 2 * y, noise[..., 1] * (1 + 2 * y)], axis=-1).astype(np.float32)

    train, test = labels(800, 0) % 2, labels(200, 1) % 2
    x, z = signal(train, 2), signal(test, 3)
    eraser = leace(x, train, 2)
    assert read("linear", x, train, z, test) > 0.95
    assert abs(read("linear", eraser(x), train, eraser(z), test) - 0.5) < 0.15
    assert read("conv", eraser(x), train, eraser(z), test) > 0.9


def test_a_probe_does_not_depend_on_a_channels_scale():
    train, test = labels(512, 0), labels(200, 1)
    x, z = features(train, 2, 1.0), features(test, 3, 1.0)
    factors = np.float32([1e-3, 1, 1e3, 10])
    scaled = read("linear", x * factors + 5, train, z * factors + 5, test, 4)
    assert abs(scaled - read("linear", x, train, z, test, 4)) <= 0.01


def test_dead_channels_stay_finite():
    train, test = probes.standardized(np.ones((3, 2, 2, 1)), np.full((3, 2, 2, 1), 2.0))
    assert not train.any() and np.array_equal(test, np.ones((3, 2, 2, 1)))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_unit_dies_where_all_inputs_move_together(kind):
    network = probes._network(kind, (8, 8, 16), 4, seed=0)
    hidden = keras.Model(network.input, [x.output for x in network.layers if isinstance(x, keras.layers.Activation)])
    moved = features(labels(64, 0), 1, 0.0)[..., :1].repeat(16, axis=-1).repeat(2, axis=1)[:, :8].repeat(2, axis=2)
    for outputs in keras.tree.flatten(hidden(moved[:, :, :8] + 30.0, training=True)):
        assert np.all(np.any(outputs.numpy() > 0, axis=tuple(range(outputs.ndim - 1))))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_same_seed_gives_the_same_predictions(kind, monkeypatch):
    monkeypatch.setitem(probes.PROBES, kind, probes.PROBES[kind] | {"epochs": 1})
    assert score(kind, 0.1) == score(kind, 0.1)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of linear, knn, mlp, conv, not 'deep'"):
        score("deep", 1.0)


@pytest.mark.parametrize("neighbours", [1, 5, 10_000])
def test_the_nearest_neighbours_are_those_of_a_plain_loop(neighbours):
    rng = np.random.default_rng(0)
    train, test, given = rng.normal(size=(60, 8)), rng.normal(size=(25, 8)), rng.integers(3, size=60)
    expected = []
    for x in test:
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        nearest = sorted(range(60), key=lambda i: -cosines[i])[:neighbours]
        votes = [(sum(given[i] == c for i in nearest), sum(1 + cosines[i] for i in nearest if given[i] == c))
                 for c in range(3)]  # fmt: skip
        expected.append(max(range(3), key=lambda c: votes[c]))
    assert probes.nearest_neighbours(train, given, test, neighbours).tolist() == expected


def test_small_pixels_are_means_over_squares():
    images = np.random.default_rng(0).integers(256, size=(2, 70, 70, 3), dtype=np.uint8)
    pixels = probes.small_pixels(images)
    assert pixels.shape == (2, 35, 35, 3)
    np.testing.assert_allclose(pixels[1, 3, 4], images[1, 6:8, 8:10].mean(axis=(0, 1)) / 127.5 - 1, atol=1e-6)
