"""Where the picture would change if the category did, and how that is compared with a mask."""

import types

import numpy as np
import pytest

from cdc_keras.audit import decoding
from cdc_keras.visualize.maps import iou, pointing


def painter():
    """A decoder that paints category y as grey level y in the upper left quarter, and T everywhere else."""

    def predict_on_batch(inputs):
        context, condition = inputs
        images = np.broadcast_to(context.mean(axis=(1, 2, 3))[:, None, None, None], (len(context), 8, 8, 3)).copy()
        images[:, :4, :4] = condition.argmax(axis=1)[:, None, None, None]
        return images

    return types.SimpleNamespace(
        num_classes=4,
        conditional=True,
        decoder=types.SimpleNamespace(predict_on_batch=predict_on_batch),
        condition=lambda labels: np.eye(4, dtype="float32")[labels],
    )


def test_the_spread_is_the_deviation_over_categories():
    maps = decoding.spread(painter(), np.zeros((300, 2, 2, 1), "float32"), 4)
    assert maps.shape == (300, 4, 4)
    assert maps[0, :2, :2] == pytest.approx(np.std([0, 1, 2, 3])) and not maps[0, 2:].any() and not maps[0, :, 2:].any()


def test_the_overlap_of_a_map_is_counted_over_as_many_places_as_the_mask_has():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :2] = True
    right, half = np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    right[0, :2, :2] = [[4, 3], [2, 1]]
    half[0, :2, 1:3] = [[3, 9], [4, 3]]
    assert [of(right, mask).tolist() for of in (iou, pointing)] == [[1.0], [True]]
    assert iou(half, mask)[0] == pytest.approx(2 / 6) and not pointing(half, mask)[0]
