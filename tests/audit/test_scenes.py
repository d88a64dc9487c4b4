"""Counterfactual error and V, where the right values are known: a decoder that ignores the category."""

import numpy as np
import pytest

from cdc_keras.audit import scenes
from cdc_keras.config import RunConfig
from cdc_keras.data.shapes import counterfactual_shapes
from cdc_keras.trainers.disentangler import Disentangler


@pytest.fixture(scope="module")
def model():
    return Disentangler(32, 10)


def test_a_decoder_that_paints_the_image_again_errs_by_the_distance_of_the_two_scenes(model, monkeypatch):
    split, others, images = counterfactual_shapes(1000, seed=3)
    monkeypatch.setattr(scenes.decoding, "_decoded", lambda disentangler, t, y: next(painted))
    batches = [split.images[i : i + 250] / np.float32(127.5) - 1 for i in range(0, 1000, 250)]
    painted = iter(batches)
    found = scenes.measured(model.encoder, model, RunConfig().resolved(32), 1000, 3)
    expected = np.mean((split.images / 127.5 - images / 127.5) ** 2)
    assert found["counterfactual_mse"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert 0.08 < expected < 0.2


def test_what_is_measured_are_shares_with_intervals(model):
    found = scenes.measured(model.encoder, model, RunConfig(difficulty=0.5).resolved(32), 20, 0)
    assert list(found) == ["counterfactual_mse", "spread_iou", "spread_iou_of_another", "spread_pointing"]
    for name, value in found.items():
        assert 0 <= value["low"] <= value["mean"] <= value["high"], name
        assert name == "counterfactual_mse" or value["high"] <= 1
    first, second = scenes.sentences("context", found)
    assert first.startswith("Counterfactual MSE from T: ") and second.startswith("V of T shows ")
