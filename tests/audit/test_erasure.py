"""Linear erasure against other formulations of it, and bootstrap intervals against the binomial's."""

import numpy as np
import pytest

from cdc_keras.audit import erasure
from cdc_keras.audit.bootstrap import interval
from cdc_keras.audit.erasure import leace

CLASSES = 5


def correlated(count, width, seed=0):
    """Correlated features of very different variances in which each class has its own mean."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % CLASSES)
    mixing = rng.normal(size=(width, width)) * np.geomspace(0.1, 3, width)
    means = rng.normal(size=(CLASSES, width))
    return 2 + means[labels] + rng.normal(size=(count, width)) @ mixing, labels


def class_means(features, labels):
    return np.stack([features[labels == c].mean(axis=0, dtype=np.float64) for c in range(CLASSES)])


@pytest.mark.parametrize(("count", "width"), [(400, 20), (60, 200)])
@pytest.mark.parametrize("shrinkage", [None, 0.3])
def test_class_means_are_equal_where_the_erasure_was_fitted(count, width, shrinkage):
    features, labels = correlated(count, width)
    assert np.ptp(class_means(features, labels), axis=0).max() > 1
    erased = leace(features, labels, CLASSES, shrinkage)(features)
    means = class_means(erased, labels)
    assert np.ptp(means, axis=0).max() < 1e-6 * np.abs(features).max()
    np.testing.assert_allclose(means[0], features.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("shrinkage", [1e-6, 0.2])
def test_it_is_the_articles_projection_in_whitened_space(shrinkage):
    features, labels = correlated(400, 12)
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 12 * np.eye(12)
    values, vectors = np.linalg.eigh(covariance)
    whiten, colour = (vectors * values**power @ vectors.T for power in (-0.5, 0.5))
    between = centred.T @ np.eye(CLASSES)[labels] / len(features)
    left, singular, _ = np.linalg.svd(whiten @ between, full_matrices=False)
    left = left[:, singular > 1e-9 * singular[0]]
    expected = features - centred @ (colour @ left @ left.T @ whiten).T
    np.testing.assert_allclose(leace(features, labels, CLASSES, shrinkage)(features), expected, atol=1e-5)


def test_no_other_erasing_map_changes_the_features_less():
    """The least change is a quadratic problem with linear constraints, solved here by its Lagrange conditions."""
    features, labels = correlated(400, 6)
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    between = centred.T @ np.eye(CLASSES)[labels][:, :-1] / len(features)  # (6, 4)
    # Row p of the change P minimises p S p' with p A = row of A: [[2 S, A], [A', 0]].
    system = np.block([[2 * covariance, between], [between.T, np.zeros((4, 4))]])
    change = np.linalg.solve(system, np.concatenate([np.zeros((6, 6)), between.T]))[:6].T
    expected = features - centred @ change.T
    erased = leace(features, labels, CLASSES, 0.0)(features)
    np.testing.assert_allclose(erased, expected, atol=1e-5)
    rng, least = np.random.default_rng(1), np.mean((erased - features) ** 2)
    for _ in range(5):
        metric = rng.normal(size=(6, 6))
        read = metric @ metric.T @ between
        other = features - centred @ read @ np.linalg.inv(between.T @ read) @ between.T
        assert np.ptp(class_means(other, labels), axis=0).max() < 1e-9
        assert np.mean((other - features) ** 2) > least


def test_the_two_ways_to_solve_it_agree():
    features, labels = correlated(50, 50)
    wider = np.concatenate([features, np.zeros((50, 1))], axis=1)  # as many images as features, then one fewer
    shrinkage = 0.1
    # The zero feature lowers the mean variance, by which the identity is multiplied.
    lower = 1 / (1 + (1 / shrinkage - 1) * 50 / 51)
    narrow, wide = leace(features, labels, CLASSES, lower)(features), leace(wider, labels, CLASSES, shrinkage)(wider)
    assert np.isfinite(wide).all() and not wide[:, -1].any()
    np.testing.assert_allclose(class_means(wide, labels)[:, :-1], class_means(narrow, labels), atol=1e-5)


def test_the_shrinkage_is_that_of_ledoit_and_wolf():
    for count, width in ((40, 10), (10, 40)):
        features = correlated(count, width)[0]
        centred = features - features.mean(axis=0)
        covariance = centred.T @ centred / count
        target = np.trace(covariance) / width * np.eye(width)
        noise = sum(np.sum((np.outer(x, x) - covariance) ** 2) for x in centred) / count**2
        expected = noise / np.sum((covariance - target) ** 2)
        gram = covariance if width <= count else centred @ centred.T / count
        assert erasure._ledoit_wolf(gram, centred) == pytest.approx(min(expected, 1))


def test_features_that_never_vary_stay_as_they_are():
    features = np.ones((20, 2, 2, 1), np.float32)
    np.testing.assert_array_equal(leace(features, np.arange(20) % CLASSES, CLASSES)(features), features)


def test_it_takes_whole_directions_one_fewer_than_there_are_classes():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(2000, 10)), rng.integers(CLASSES, size=2000)
    change = leace(features, labels, CLASSES)(features) - features
    assert np.linalg.matrix_rank(change - change.mean(axis=0), tol=1e-2) == CLASSES - 1
    # Of 10 directions of equal variance 4, whatever the class means: 2000 images know the variances to a few percent.
    assert np.mean(change**2) == pytest.approx((CLASSES - 1) / 10, rel=0.1)


def test_the_interval_of_a_share_is_the_binomials():
    count, share = 2000, 0.3
    low, high = interval(np.arange(count) < share * count, seed=0)
    half = 1.96 * np.sqrt(share * (1 - share) / count)
    # 1000 resamples: a percentile at 2.5% has a standard error of about 0.08 half-widths.
    assert abs(low - (share - half)) < 0.3 * half and abs(high - (share + half)) < 0.3 * half
    assert low < share < high and interval(np.arange(count) < share * count, seed=0) == (low, high)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        low, high = interval(rng.random(150) < 0.4, seed)
        held += low <= 0.4 <= high
    assert 0.89 <= held / 100 <= 0.99


def test_the_interval_of_what_is_always_right_is_a_point():
    assert interval(np.ones(50, bool), seed=0) == (1.0, 1.0)
