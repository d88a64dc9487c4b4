"""How a map is compared with a mask."""

import numpy as np
import pytest

from cdc_keras.visualize.maps import iou, pointing


def test_the_overlap_of_a_map_is_counted_over_as_many_places_as_the_mask_has():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :2] = True
    right, half = np.zeros((1, 4, 4)), np.zeros((1, 4, 4))
    right[0, :2, :2] = [[4, 3], [2, 1]]
    half[0, :2, 1:3] = [[3, 9], [4, 3]]
    assert [of(right, mask).tolist() for of in (iou, pointing)] == [[1.0], [True]]
    assert iou(half, mask)[0] == pytest.approx(2 / 6) and not pointing(half, mask)[0]
