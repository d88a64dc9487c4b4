"""The leak meter: closed-form, and right where the answer is known."""

import numpy as np
import pytest

from cdc_keras.data.dataset import Split
from cdc_keras.networks import autoencoder
from cdc_keras.runs.leak import RIDGE, leak, leak_of

RNG = np.random.default_rng(0)


def contexts(strength, count=400, classes=4):
    labels = RNG.integers(classes, size=count)
    noise = RNG.normal(size=(count, 2, 2, 8))
    noise[np.arange(count), 0, 0, labels] += strength
    return noise, labels


def test_a_t_that_shows_the_category_leaks_it_and_one_that_does_not_is_read_by_chance():
    assert leak(*contexts(12.0), 4) > 0.95
    # 200 images are read: four standard errors of a quarter are 0.12.
    assert abs(leak(*contexts(0.0), 4) - 0.25) < 0.12


def test_it_finds_what_no_linear_reader_finds():
    signs = RNG.choice([-1.0, 1.0], size=(600, 2))
    context = np.concatenate([signs, 0.1 * RNG.normal(size=(600, 2))], axis=1).reshape(600, 1, 1, 4)
    assert leak(context, (signs[:, 0] * signs[:, 1] > 0).astype(int), 2) > 0.95


def test_it_is_kernel_ridge_regression_in_closed_form():
    context, labels = contexts(2.0, count=100)
    scaled = (context / context[:50].std(axis=(0, 1, 2))).reshape(100, -1)
    squares = ((scaled[:, None] - scaled[None, :50]) ** 2).sum(axis=-1)
    kernel = np.exp(-squares / np.median(squares[50:]))
    targets = np.eye(4)[labels[:50]]
    weights = np.linalg.solve(kernel[:50] + RIDGE * np.eye(50), targets - targets.mean(axis=0))
    read = (kernel[50:] @ weights + targets.mean(axis=0)).argmax(axis=1)
    assert leak(context, labels, 4) == pytest.approx(np.mean(read == labels[50:]))


def test_a_dead_channel_does_no_harm():
    context, labels = contexts(12.0)
    context[..., -1] = 0
    assert leak(context, labels, 4) > 0.9


def test_it_reads_the_t_of_a_split():
    split = Split(RNG.integers(0, 256, (12, 32, 32, 3)).astype("uint8"), RNG.integers(3, size=12).astype("int32"))
    assert 0 <= leak_of(autoencoder.encoder(32, noise=1.0), split, 3) <= 1
