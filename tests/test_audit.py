import json
import types

import keras
import numpy as np
import pytest

from cdc_keras import audit
from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.data.shapes import load_shapes
from cdc_keras.networks import autoencoder

SIZES = {"train_size": 160, "validation_size": 130, "test_size": 60}


def features(labels, seed, signal):
    """Noise of 4 channels with `signal` added to the channel of the label."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6, 6, 4)).astype(np.float32)
    return noise + signal * np.eye(4, dtype=np.float32)[labels][:, None, None]


def labels(count, seed):
    return np.random.default_rng(seed).integers(4, size=count)


def score(kind, signal, train_labels=None, **changed):
    train, test = labels(512, 0), labels(200, 1)
    arguments = {"kind": kind, "num_classes": 4, "seed": 0} | changed
    given = train if train_labels is None else train_labels
    return audit.probe(features(train, 2, signal), given, features(test, 3, signal), test, **arguments)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_probe_reads_what_is_there(kind):
    assert score(kind, 1.0) > 0.9


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_probe_of_shuffled_labels_is_near_chance(kind):
    assert abs(score(kind, 1.0, train_labels=labels(512, 9)) - 0.25) < 0.15  # 200 test images: one sigma is 0.03


def test_only_the_conv_probe_reads_texture_that_averages_out():
    def stripes(y, seed):
        image = np.random.default_rng(seed).normal(size=(len(y), 8, 8, 1)).astype(np.float32)
        lines = np.where(np.arange(8) % 2, 1.0, -1.0)
        pattern = np.where(y[:, None, None] == 1, lines[:, None], lines[None, :])
        return image + 1.5 * pattern[..., None].astype(np.float32)

    train, test = labels(512, 0) % 2, labels(200, 1) % 2
    scores = {
        kind: audit.probe(stripes(train, 2), train, stripes(test, 3), test, kind=kind, num_classes=2, seed=0)
        for kind in ("linear", "conv")
    }
    assert scores["conv"] > 0.9 and scores["linear"] < 0.65


def test_a_probe_does_not_depend_on_the_scale_of_a_channel():
    train, test = labels(512, 0), labels(200, 1)
    x, z = features(train, 2, 1.0), features(test, 3, 1.0)
    factors = np.float32([1e-3, 1, 1e3, 10])
    arguments = {"kind": "linear", "num_classes": 4, "seed": 0}
    scaled = audit.probe(x * factors + 5, train, z * factors + 5, test, **arguments)
    assert abs(scaled - audit.probe(x, train, z, test, **arguments)) <= 0.01


def test_dead_channels_stay_finite():
    train, test = audit._standardized(np.ones((3, 2, 2, 1)), np.full((3, 2, 2, 1), 2.0))
    assert not train.any() and np.array_equal(test, np.ones((3, 2, 2, 1)))


def test_the_same_seed_gives_the_same_accuracy():
    assert score("conv", 0.1, epochs=1) == score("conv", 0.1, epochs=1)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of linear, conv, not 'deep'"):
        score("deep", 1.0)


def test_contexts_are_the_extractors_output_whatever_the_batch_size():
    extractor = autoencoder.encoder(32)
    images = np.random.default_rng(0).integers(256, size=(7, 32, 32, 3), dtype=np.uint8)
    result = audit.contexts(extractor, images, batch_size=3)
    assert (result.shape, result.dtype) == ((7, 8, 8, 64), np.float32)
    direct = keras.ops.convert_to_numpy(extractor(images / np.float32(127.5) - 1, training=False))
    np.testing.assert_allclose(result, direct, atol=1e-4)  # float32 through eight convolutions


def test_small_pixels_are_means_over_squares():
    images = np.random.default_rng(0).integers(256, size=(2, 70, 70, 3), dtype=np.uint8)
    pixels = audit._small_pixels(images)
    assert pixels.shape == (2, 35, 35, 3)
    np.testing.assert_allclose(pixels[1, 3, 4], images[1, 6:8, 8:10].mean(axis=(0, 1)) / 127.5 - 1, atol=1e-6)


def test_a_real_factor_becomes_six_equally_full_classes():
    hue = np.random.default_rng(0).random(600).astype(np.float32)
    train, test, count = audit._classes(hue, np.float32([0.0, 0.999]))
    assert count == 6 and np.array_equal(np.bincount(train), [100] * 6) and test.tolist() == [0, 5]


def test_the_audit_of_shapes_is_complete_and_plain_json(monkeypatch):
    monkeypatch.setattr(audit, "KINDS", {kind: {**values, "epochs": 1} for kind, values in audit.KINDS.items()})
    dataset = load_shapes(seed=0, **SIZES)
    result = audit.audit(autoencoder.encoder(32), dataset, factors=["hue"], limit=150, seed=0)
    assert json.loads(json.dumps(result)) == result
    assert (result["train_images"], result["test_images"]) == (150, 50)
    assert list(result["accuracy"]) == ["category", "hue"]
    for entry in result["accuracy"].values():
        values = [entry["chance"], *entry["context"].values(), *entry["pixels"].values()]
        assert len(values) == 5 and all(0 <= value <= 1 for value in values)


def test_the_probes_train_on_the_split_they_are_told(monkeypatch):
    sizes = []
    monkeypatch.setattr(audit, "probe", lambda x, y, *rest, **options: sizes.append(len(y)) or 0.5)
    dataset = load_shapes(seed=0, **SIZES)
    audit.audit(autoencoder.encoder(32), dataset, seed=0, train_split="validation")
    assert set(sizes) == {SIZES["validation_size"]}


def test_chance_is_the_share_of_what_is_most_frequent_in_training(monkeypatch):
    monkeypatch.setattr(audit, "probe", lambda *arrays, **options: 0.5)
    part = lambda y: Split(np.zeros((len(y), 32, 32, 3), np.uint8), np.int32(y))  # noqa: E731
    dataset = Dataset("tiny", ("a", "b"), 32, part([1, 1, 0]), part([]), part([0, 0, 0, 1]))
    result = audit.audit(autoencoder.encoder(32), dataset, limit=12, seed=0)
    assert result["accuracy"]["category"]["chance"] == 0.25


def test_a_factor_that_is_not_known_is_refused_with_those_that_are():
    dataset = types.SimpleNamespace(name="shapes", test=load_shapes(seed=0, **SIZES).test)
    with pytest.raises(ValueError, match="shapes has no factor colour; it has texture, hue"):
        audit.audit(None, dataset, factors=("colour",), seed=0)
