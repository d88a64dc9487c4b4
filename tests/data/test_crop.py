"""The random resized crop, measured on an image whose pixels say where they are."""

import time

import numpy as np
import pytest
import tensorflow as tf

from cdc_keras.data.crop import MOST_STRETCHED, fitted, random_resized_crop, squeezed

HEIGHT, WIDTH, AREA = 120, 160, 0.08
COORDINATES = np.stack([*np.mgrid[:HEIGHT, :WIDTH], np.zeros((HEIGHT, WIDTH), int)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def rectangles():
    """(top, left, height, width) of 1500 crops: enlarged, a crop's corner pixels are the image's own."""
    dataset = tf.data.Dataset.range(1500).map(
        lambda i: random_resized_crop(tf.constant(COORDINATES), WIDTH, AREA, tf.stack([7, i])), num_parallel_calls=2
    )
    corners = np.array([image[[0, -1], [0, -1], :2] for image in dataset.as_numpy_iterator()]).astype(int)
    return np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0] + 1], axis=1)


def test_a_crop_has_the_size_asked_for_and_stays_inside_the_image(rectangles):
    crop = random_resized_crop(tf.constant(COORDINATES), 24, AREA, tf.constant([0, 0], tf.int64))
    assert (crop.shape, crop.dtype) == ((24, 24, 3), tf.uint8)
    top, left, height, width = rectangles.T
    assert min(top.min(), left.min()) == 0 and min(height.min(), width.min()) > 0
    # The borders are reached, up to a pixel that TensorFlow's op leaves out at the end.
    assert HEIGHT - 1 <= (top + height).max() <= HEIGHT and WIDTH - 1 <= (left + width).max() <= WIDTH


def test_the_area_of_crops_is_at_least_the_share_asked_for_and_fills_the_range(rectangles):
    share = rectangles[:, 2] * rectangles[:, 3] / (HEIGHT * WIDTH)
    assert AREA <= share.min() < 0.1 and 0.85 < share.max() <= 1
    assert abs(share.mean() - 0.37) < 0.03  # as documented; five standard errors


def test_the_aspect_ratio_of_crops_lies_between_3_to_4_and_4_to_3(rectangles):
    height, width = rectangles[:, 2], rectangles[:, 3]
    assert ((width + 1) / height >= 3 / 4).all() and ((width - 1) / height <= 4 / 3).all()  # up to a pixel of rounding
    assert np.percentile(width / height, 5) < 0.82 and np.percentile(width / height, 95) > 1.25


def test_crops_lie_anywhere(rectangles):
    top, left, height, width = rectangles.T
    for start, free in ((top, HEIGHT - height), (left, WIDTH - width)):
        room = free > 30
        assert abs((start[room] / free[room]).mean() - 0.5) < 0.05


def test_a_smallest_share_of_one_is_the_largest_part_of_a_square():
    image = tf.constant(COORDINATES[:, :HEIGHT])
    crop = random_resized_crop(image, HEIGHT, 1.0, tf.constant([0, 0], tf.int64))
    np.testing.assert_array_equal(crop, image)


def test_squeezing_keeps_the_whole_image():
    image = squeezed(tf.constant(COORDINATES), 40).numpy()
    np.testing.assert_allclose(image[1:-1, :, 0], np.repeat((np.arange(1, 39)[:, None] + 0.5) * 3 - 0.5, 40, 1), atol=1)
    np.testing.assert_allclose(image[:, 1:-1, 1], np.repeat((np.arange(1, 39)[None] + 0.5) * 4 - 0.5, 40, 0), atol=1)


def resized_whole(image, image_size):
    """What `fitted` gives of an image that is not stretched: resized whole, then cropped."""
    scale = image_size / min(image.shape[:2])
    resized = [max(round(side * scale), image_size) for side in image.shape[:2]]
    pixels = tf.image.resize(image, resized, method="bilinear", antialias=True)
    return np.rint(tf.image.resize_with_crop_or_pad(pixels, image_size, image_size).numpy().clip(0, 255))


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (12, 12 * MOST_STRETCHED), (20 * MOST_STRETCHED + 40, 20)])
@pytest.mark.parametrize("image_size", [16, 33])
def test_the_middle_of_a_fitted_image_does_not_depend_on_its_ends(shape, image_size):
    image = np.random.default_rng(0).integers(256, size=(*shape, 3), dtype=np.uint8)
    difference = abs(fitted(tf.constant(image), image_size).numpy().astype(float) - resized_whole(image, image_size))
    assert difference.max() <= 1e-3 + (max(shape) > MOST_STRETCHED * min(shape))


def test_a_strip_of_20000_x_3_pixels_is_fitted_within_a_second():
    strip = tf.constant(np.random.default_rng(0).integers(256, size=(20_000, 3, 3), dtype=np.uint8))
    start = time.perf_counter()
    assert fitted(strip, 32).shape == (32, 32, 3)
    assert time.perf_counter() - start < 1
