"""The losses against an independent NumPy reference in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cdc_keras import choices
from cdc_keras.trainers import losses

# float32 arithmetic on some dozen values of size one, against float64.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=2, size=(7, 5)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 4, 0, 2], "int32")
WRONG = np.array([1, 4, 0, 2, 3, 3, 1], "int32")
IMAGES = RNG.uniform(-1, 1, (7, 4, 6, 3)).astype("float32")
# Distances from far below to far above the margin, by every norm.
OTHERS = (IMAGES + RNG.normal(size=IMAGES.shape) * np.logspace(-4, 0, 7)[:, None, None, None]).astype("float32")


def probabilities(logits):
    exponentials = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(logits, labels):
    return -np.mean([np.log(row[label]) for row, label in zip(probabilities(logits), labels, strict=True)])


def distances(a, b):
    difference = (a.astype("float64") - b).reshape(len(a), -1)
    return np.array([np.sqrt(np.mean(row * row)) for row in difference])


def gradient(function, value):
    value = tf.constant(value)
    with tf.GradientTape() as tape:
        tape.watch(value)
        loss = function(value)
    return tape.gradient(loss, value).numpy()


def test_reconstruction_loss_is_the_mean_square_over_all_elements():
    expected = ((IMAGES.astype("float64") - OTHERS) ** 2).mean()
    np.testing.assert_allclose(losses.reconstruction_loss(IMAGES, OTHERS), expected, **TOLERANCE)


def test_discriminator_loss_is_the_mean_cross_entropy():
    np.testing.assert_allclose(losses.discriminator_loss(LOGITS, LABELS), cross_entropy(LOGITS, LABELS), **TOLERANCE)


def test_cross_entropy_with_mixed_labels_is_the_mean_over_the_shares():
    shares = np.random.default_rng(1).dirichlet(np.ones(5), size=7)
    expected = -(shares * np.log(probabilities(LOGITS))).sum(axis=1)
    np.testing.assert_allclose(losses.cross_entropies(shares.astype("float32"), LOGITS), expected, **TOLERANCE)
    whole = losses.cross_entropies(np.eye(5, dtype="float32")[LABELS], LOGITS)
    np.testing.assert_allclose(whole, losses.cross_entropies(LABELS, LOGITS), **TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("softmax", np.mean([row[label] for row, label in zip(probabilities(LOGITS), LABELS, strict=True)])),
        ("wrong_class_ce", cross_entropy(LOGITS, WRONG)),
        ("uniform_ce", -np.mean([np.sum(np.log(row) / 5) for row in probabilities(LOGITS)])),
    ],
)
def test_fooling_loss_is_its_closed_form(kind, expected):
    np.testing.assert_allclose(losses.fooling_loss(LOGITS, LABELS, kind, WRONG), expected, **TOLERANCE)


def test_every_kind_of_fooling_loss_has_a_reference_here():
    assert set(choices.FOOL_LOSSES) == {"softmax", "wrong_class_ce", "uniform_ce"}


def test_an_unknown_fooling_loss_is_an_error_naming_the_known_ones():
    with pytest.raises(ValueError, match="softmax, wrong_class_ce, uniform_ce, not 'hinge'"):
        losses.fooling_loss(LOGITS, LABELS, "hinge")


@pytest.mark.parametrize("kind", choices.FOOL_LOSSES)
def test_only_the_softmax_loss_loses_its_gradient_where_the_discriminator_is_confident(kind):
    confident = np.where(np.eye(5)[LABELS], 50.0, 0.0).astype("float32")  # softmax 1 - 8e-22
    size = np.linalg.norm(gradient(lambda x: losses.fooling_loss(x, LABELS, kind, WRONG), confident))
    assert size < 1e-15 if kind == "softmax" else size > 0.1


def test_repulsive_loss_is_the_mean_hinge_on_the_distance_of_each_image():
    distance = distances(IMAGES, OTHERS)
    delta = float(np.median(distance)) * 1.01
    loss, active = losses.repulsive_loss(IMAGES, OTHERS, delta)
    np.testing.assert_allclose(loss, np.mean(np.maximum(delta - distance, 0)), **TOLERANCE)
    np.testing.assert_allclose(active, 4 / 7, **TOLERANCE)


def test_identical_images_repel_with_the_whole_margin_and_a_finite_gradient():
    loss, active = losses.repulsive_loss(IMAGES, IMAGES, 0.01)
    np.testing.assert_allclose(loss, 0.01, atol=2e-6)  # the square root is cut off at 1e-6
    assert active == 1
    assert np.isfinite(gradient(lambda x: losses.repulsive_loss(x, IMAGES, 0.01)[0], IMAGES)).all()


def test_descending_the_repulsive_loss_moves_images_apart():
    near = OTHERS[:1]
    moved = near - 1e-4 * np.sign(gradient(lambda x: losses.repulsive_loss(IMAGES[:1], x, 1.0)[0], near))
    assert distances(IMAGES[:1], moved) > distances(IMAGES[:1], near)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_wrong_label_is_never_the_label_and_about_uniform(num_classes):
    labels = np.arange(20_000, dtype="int32") % num_classes
    drawn = np.array(losses.draw_wrong_labels(tf.constant(labels), num_classes, keras.random.SeedGenerator(0)))
    counts = np.array([np.bincount(drawn[labels == label], minlength=num_classes) for label in range(num_classes)])
    assert drawn.min() == 0 and drawn.max() == num_classes - 1
    assert (np.diag(counts) == 0).all()
    expected = len(labels) / num_classes / (num_classes - 1)
    # Five standard deviations of a binomial count.
    assert abs(counts + expected * np.eye(num_classes) - expected).max() <= 5 * np.sqrt(expected)


def test_two_draws_of_wrong_labels_differ():
    labels, seed = tf.constant(LABELS), keras.random.SeedGenerator(0)
    first, second = (np.array(losses.draw_wrong_labels(labels, 1000, seed)) for _ in range(2))
    assert (first != second).any()
