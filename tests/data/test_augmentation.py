"""RandAugment, CutMix and MixUp: what is drawn, and KerasCV's layers that are told it, against NumPy and Pillow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from cdc_keras.choices import AUGMENTATIONS
from cdc_keras.config import RunConfig
from cdc_keras.data.augmentation import MAGNITUDE, OPERATIONS, POLICY, RATE, _policy, _rand_augment, augment_batch, draw
from cdc_keras.data.dataset import Split, StreamSplit, numbered
from cdc_keras.data.pipeline import evaluation_batches, scale, training_batches
from cdc_keras.devices import distribution
from cdc_keras.errors import UserError
from cdc_keras.trainers.classifier import Classifier

SIZE, CLASSES = 16, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(24, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = np.arange(24, dtype=np.int32) % CLASSES
SPLIT = Split(IMAGES, LABELS)
PLAN = {"batch_size": 6, "seed": 3, "epoch": 1, "crop_padding": 2, "flip": True}
KINDS = [kind for kind in AUGMENTATIONS if kind != "none"]


def examples(shuffle_seed=None, selected=None, augment=False):
    rows = np.arange(24) if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(24)
    stored = tf.data.Dataset.from_tensor_slices((IMAGES[rows], LABELS[rows]))
    return numbered(stored, selected).map(lambda place, example: example)


SPLITS = {"in memory": SPLIT, "stream": StreamSplit(examples, 24)}


def epoch(kind, split=SPLIT, **changed):
    batches = training_batches(split, SIZE, num_classes=CLASSES, augmentation=kind, **(PLAN | changed))
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def drawn(kind, steps=1, batch_size=24, image_size=SIZE):
    return draw(kind, np.random.default_rng(1), steps, batch_size, image_size)


def step_of(plan, step=0):
    return {name: array[step] for name, array in plan.items()}


def one_hot(labels):
    return np.eye(CLASSES)[labels]


def assert_same(batches, others):
    for (images, labels), (expected_images, expected_labels) in zip(batches, others, strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("image_size", [SIZE, 15, 33])
def test_cutmix_takes_a_square_of_the_partner_and_its_share_of_the_label(image_size):
    images = RNG.integers(256, size=(24, image_size, image_size, 3), dtype=np.uint8)
    for step in range(20):
        plan = step_of(drawn("cutmix", steps=20, image_size=image_size), step)
        mixed, labels = augment_batch(tf.constant(images), tf.constant(LABELS), plan, CLASSES)
        for i, partner in enumerate(plan["partner"]):
            top, left, side = (plan[name][i] for name in ("top", "left", "side"))
            expected = images[i].copy()
            expected[top : top + side, left : left + side] = images[partner, top : top + side, left : left + side]
            np.testing.assert_array_equal(mixed[i], expected)
            share = side**2 / image_size**2
            expected = (1 - share) * one_hot(LABELS[i]) + share * one_hot(LABELS[partner])
            np.testing.assert_allclose(labels[i], expected, atol=1e-6)


def test_a_square_of_cutmix_lies_inside_the_image_and_can_be_all_of_it_or_nothing():
    plan = draw("cutmix", np.random.default_rng(0), 500, 100, 8)
    for start in ("top", "left"):
        assert (plan[start] >= 0).all() and (plan[start] + plan["side"]).max() == 8
    # The share of an image that is left is uniform, so each eighth of a side has its part of the squares' areas.
    expected = [(2 * side + 1) / 64 for side in range(8)]
    np.testing.assert_allclose(np.bincount(plan["side"].ravel(), minlength=8) / 50_000, expected, atol=0.01)
    whole = step_of(drawn("cutmix")) | {name: np.zeros(24, np.int32) for name in ("top", "left")}
    mixed, labels = augment_batch(IMAGES, LABELS, whole | {"side": np.full(24, SIZE, np.int32)}, CLASSES)
    np.testing.assert_array_equal(mixed, IMAGES[whole["partner"]])
    np.testing.assert_allclose(labels, one_hot(LABELS[whole["partner"]]), atol=1e-6)


def test_mixup_lays_images_and_labels_over_one_another_with_the_same_weight():
    plan = step_of(drawn("mixup"))
    mixed, labels = augment_batch(tf.constant(IMAGES), tf.constant(LABELS), plan, CLASSES)
    share, partner = plan["share"].astype(float), plan["partner"]
    weights = share[:, None, None, None]
    np.testing.assert_allclose(mixed, weights * IMAGES + (1 - weights) * IMAGES[partner], atol=1e-3)
    expected = share[:, None] * one_hot(LABELS) + (1 - share[:, None]) * one_hot(LABELS[partner])
    np.testing.assert_allclose(labels, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_every_image_of_a_batch_is_the_partner_of_one(kind):
    partner = drawn(kind, steps=50)["partner"]
    assert (np.sort(partner, axis=1) == np.arange(24)).all()
    assert len(np.unique(partner, axis=0)) == 50


def test_the_weights_of_mixup_are_a_beta_distribution_with_most_of_it_at_its_ends():
    share = drawn("mixup", steps=2000)["share"]
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 0.25 / 1.4) < 0.003  # a / ((2a)^2 (2a + 1)) with a = 0.2


def rand_augmented(images, name, strengths, slot=0):
    operations = np.full((len(images), OPERATIONS), len(POLICY), np.int32)
    operations[:, slot] = POLICY.index(name)
    strengths = np.broadcast_to(np.float32(strengths), (len(images), OPERATIONS, 3))
    result, labels = augment_batch(images, LABELS, {"operations": operations, "strengths": strengths}, CLASSES)
    assert labels is LABELS
    return np.asarray(result)


def solarized(image):
    moved = np.clip(image + 110 * 0.25, 0, 255)
    return np.where(moved < 255 * 0.4, moved, 255 - moved)


def contrasted(image):
    mean = image.mean((0, 1))
    return np.clip((image - mean) * (1 + MAGNITUDE * 0.5) + mean, 0, 255)


def greyer(image):
    grey = image @ np.array([0.2989, 0.587, 0.114])
    return image + 0.25 * (grey[..., None] - image)


def pillow(change):
    return lambda image: np.asarray(change(Image.fromarray(image.astype(np.uint8))))


REFERENCES = {
    "auto_contrast": pillow(ImageOps.autocontrast),
    "equalize": pillow(ImageOps.equalize),
    "solarize": solarized,
    "color": greyer,
    "contrast": contrasted,
    "brightness": lambda image: np.clip(image + 255 * MAGNITUDE * 0.5, 0, 255),
}


@pytest.mark.parametrize("slot", range(OPERATIONS))
@pytest.mark.parametrize("name", REFERENCES)
def test_an_operation_on_colours_is_that_of_its_formula_or_of_pillow(name, slot):
    images = RNG.integers(40, 168, (6, 64, 64, 3), dtype=np.uint8)
    # To equalize, Pillow sets the brightest value's pixels aside, KerasCV the rarest one's: here both are one pixel.
    images[:, 0, 0] = 200
    result = rand_augmented(images, name, (0.25, 0.6, 0.5), slot)
    expected = np.stack([REFERENCES[name](image.astype(float)) for image in images])
    # Pillow cuts off to bytes where the layers keep fractions, and greys are rounded.
    np.testing.assert_allclose(result, expected, atol=1.01)


@pytest.mark.parametrize("name, axis", [("translate_x", 2), ("translate_y", 1)])
def test_an_image_is_moved_by_the_share_of_its_side_that_was_drawn(name, axis):
    moved = rand_augmented(IMAGES, name, (0, 0, 0.125 / MAGNITUDE))  # an eighth of 16 pixels
    rows = [slice(None)] * 4
    rows[axis] = slice(2, None)
    np.testing.assert_allclose(moved[tuple(rows)], np.roll(IMAGES, 2, axis)[tuple(rows)], atol=1e-2)


@pytest.mark.parametrize("name, axis", [("shear_x", 1), ("shear_y", 2)])
def test_a_sheared_image_keeps_its_first_line_and_moves_the_others(name, axis):
    sheared = rand_augmented(IMAGES, name, (0.3, 0, -1))
    np.testing.assert_allclose(sheared.take(0, axis), IMAGES.take(0, axis), atol=1e-3)
    assert abs(sheared.take(8, axis) - IMAGES.take(8, axis)).mean() > 10


def test_without_an_operation_an_image_stays_as_it_is():
    nothing = {"operations": np.full((24, OPERATIONS), len(POLICY), np.int32)}
    nothing["strengths"] = np.ones((24, OPERATIONS, 3), np.float32)
    np.testing.assert_array_equal(augment_batch(IMAGES, LABELS, nothing, CLASSES)[0], IMAGES)


def test_all_operations_are_drawn_equally_often_and_one_time_in_eleven_none():
    operations = drawn("randaugment", steps=1000)["operations"]
    shares = np.bincount(operations.ravel(), minlength=len(POLICY) + 1) / operations.size
    np.testing.assert_allclose(shares, [RATE / len(POLICY)] * len(POLICY) + [1 - RATE], atol=0.006)


def test_an_image_is_augmented_alike_whatever_stands_beside_it():
    plan = step_of(drawn("randaugment"))
    whole, _ = augment_batch(IMAGES, LABELS, plan, CLASSES)
    for i in range(24):
        alone, _ = augment_batch(IMAGES[i : i + 1], LABELS[i : i + 1], {k: v[i : i + 1] for k, v in plan.items()}, 5)
        np.testing.assert_allclose(alone[0], whole[i], atol=1e-3)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_repeats_itself_goes_on_in_its_middle_and_differs_from_the_next(kind, split):
    whole = epoch(kind, SPLITS[split])
    assert_same(epoch(kind, SPLITS[split]), whole)
    assert_same(epoch(kind, SPLITS[split], first_step=2), whole[2:])
    assert not np.array_equal(epoch(kind, SPLITS[split], epoch=2)[0][0], whole[0][0])


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_comes_after_the_same_crops_and_flips_as_without_it(kind):
    for (images, labels), (plain, plain_labels) in zip(epoch(kind), epoch("none"), strict=True):
        assert images.shape == plain.shape and images.dtype == np.float32
        assert images.min() >= -1 and images.max() <= 1
        assert not np.array_equal(images, plain)
        if kind == "randaugment":
            np.testing.assert_array_equal(labels, plain_labels)
        else:
            np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
            assert (labels[np.arange(6), plain_labels] > 0).mean() > 0.9


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("workers, replicas", [(1, 2), (3, 1)])
def test_several_replicas_see_what_one_sees(split, workers, replicas, monkeypatch):
    whole = epoch("randaugment", SPLITS[split])
    monkeypatch.setattr(distribution, "replicas", lambda: workers * replicas)

    def batches(make):
        return [list(make(worker, workers, replicas)) for worker in range(workers)]

    monkeypatch.setattr(distribution, "distributed_batches", batches)
    parts = training_batches(SPLITS[split], SIZE, augmentation="randaugment", **PLAN)
    for step, (images, labels) in enumerate(whole):
        mine = [worker[step * replicas + i] for worker in parts for i in range(replicas)]
        np.testing.assert_array_equal(np.concatenate([y for _, y in mine]), labels)
        np.testing.assert_allclose(np.concatenate([x for x, _ in mine]), images, atol=1e-5)


@pytest.mark.parametrize("kind", ["cutmix", "mixup"])
def test_mixing_of_a_batch_that_replicas_share_is_refused(kind):
    with pytest.raises(UserError, match="set strategy=none"):
        RunConfig(task="classifier", augmentation=kind, strategy="mirrored")
    RunConfig(task="classifier", augmentation="randaugment", strategy="mirrored")


@pytest.mark.parametrize("kind", KINDS)
def test_an_extractor_is_not_augmented(kind):
    with pytest.raises(UserError, match="set task=classifier"):
        RunConfig(augmentation=kind)


def test_an_unknown_augmentation_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="none, randaugment, cutmix, mixup"):
        RunConfig(task="classifier", augmentation="cutout")


@pytest.mark.parametrize("kind", KINDS)
def test_another_backend_is_refused_in_one_sentence(kind, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(UserError, match="set KERAS_BACKEND=tensorflow"):
        draw(kind, RNG, 1, 6, SIZE)
    assert draw("none", RNG, 1, 6, SIZE) == {}


def test_evaluation_is_never_augmented():
    for images, labels in evaluation_batches(SPLIT, SIZE, batch_size=24):
        np.testing.assert_array_equal(images, scale(IMAGES))
        np.testing.assert_array_equal(labels, LABELS)


def test_in_16_bits_images_are_augmented_in_32():
    plan = step_of(drawn("randaugment"))
    expected, _ = augment_batch(IMAGES, LABELS, plan, CLASSES)
    _policy.cache_clear(), _rand_augment.cache_clear()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        images, _ = augment_batch(IMAGES, LABELS, plan, CLASSES)
    finally:
        keras.config.set_dtype_policy("float32")
        _policy.cache_clear(), _rand_augment.cache_clear()
    np.testing.assert_array_equal(images, expected)


def test_training_accuracy_is_against_the_heavier_label():
    network = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    model = Classifier(keras.Model(network.inputs, network.outputs))
    logits = np.array([[3.0, 1, 0], [0, 3, 1], [0, 1, 3]], np.float32)
    labels = np.array([[0.6, 0.4, 0], [0, 0.4, 0.6], [0.1, 0, 0.9]], np.float32)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    logs = model.track(-(labels * log_p).sum(1).mean(), tf.constant(labels), tf.constant(logits))
    np.testing.assert_allclose(float(logs["top1"]), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(float(logs["loss"]), -(labels * log_p).sum(1).mean(), rtol=1e-6)
