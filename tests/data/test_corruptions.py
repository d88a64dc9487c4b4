import colorsys
import io
import time

import numpy as np
import pytest
from PIL import Image

from cdc_keras.data import corruption_parts as parts
from cdc_keras.data import corruptions
from cdc_keras.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cdc_keras.data.shapes import shapes
from cdc_keras.errors import UserError

NAMES = tuple(CORRUPTIONS)
CERTAIN = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
KEEP_A_CONSTANT = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
KEEP_A_CONSTANT += ("pixelate", "elastic_transform", "contrast")


@pytest.fixture(scope="module")
def images():
    return shapes(12, seed=0).images


def constant(*colour, count=20, size=32):
    return np.broadcast_to(np.array(colour, np.uint8), (count, size, size, 3)).copy()


def distortion(images, name, severity):
    return np.mean((corrupt(images, name, severity, 0).astype(float) - images) ** 2)


def floats(images):
    return images.transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_the_names_are_the_15_common_ones():
    assert (len(NAMES), NAMES[0], NAMES[-1]) == (15, "gaussian_noise", "jpeg_compression")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments_give_the_same_bytes_whatever_was_drawn_before(images, name):
    first = corrupt(images, name, 3, 7)
    np.random.seed(1)
    assert np.array_equal(first, corrupt(images, name, 3, 7))


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_changes_what_is_random_and_nothing_else(images, name):
    same = np.array_equal(corrupt(images, name, 3, 0), corrupt(images, name, 3, 1))
    assert same == (name in CERTAIN)


def test_a_seed_gives_the_images_that_it_always_gave(images):
    # Numbers are published on these images. Not a hash: another processor's cosine may move a pixel by a grey level.
    names = ("shot_noise", "glass_blur", "snow", "frost", "fog", "elastic_transform")
    means = [corrupt(images[-2:], name, 4, 0).mean() for name in names]
    np.testing.assert_allclose(means, [68.601, 68.474, 102.773, 103.594, 106.724, 68.953], atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_corrupted_as_it_is_among_fewer_and_other_images(images, name, monkeypatch):
    whole = corrupt(images, name, 5, 0)
    others = images.copy()
    others[:4] = 255 - others[:4]
    assert np.array_equal(whole[:5], corrupt(images[:5], name, 5, 0))
    assert np.array_equal(whole[4:], corrupt(others, name, 5, 0)[4:])
    monkeypatch.setattr(corruptions, "CHUNK", 3 * 32 * 32)
    assert np.array_equal(whole, corrupt(images, name, 5, 0))


@pytest.mark.parametrize("name", sorted(set(NAMES) - CERTAIN))
def test_two_equal_images_are_corrupted_differently(images, name):
    first, second = corrupt(images[[0, 0]], name, 4, 0)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 32, 32), (2, 8, 8), (2, 9, 23), (1, 70, 41)])
def test_any_size_of_eight_or_more_pixels_comes_back_as_bytes_of_the_same_shape(name, shape):
    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    before = images.copy()
    for severity in SEVERITIES:
        result = corrupt(images, name, severity, 0)
        assert (result.shape, result.dtype) == (images.shape, np.uint8)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", NAMES)
def test_every_severity_changes_every_image(images, name):
    for severity in SEVERITIES:
        assert (corrupt(images, name, severity, 0) != images).any((1, 2, 3)).all()


# Not glass_blur, whose blur takes back at 3 and 5 what its shuffle did at 2 and 4; not frost, which dims the picture at
# 4; not elastic_transform, whose large movements shrink as its ripples grow.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"glass_blur", "frost", "elastic_transform"}))
def test_distortion_does_not_fall_as_severity_grows(images, name):
    # Motion blur at 3 and 4 differs only in how far a trail reaches that has long faded: the angles decide.
    severities = (1, 2, 3, 5) if name == "motion_blur" else SEVERITIES
    assert (np.diff([distortion(images, name, severity) for severity in severities]) >= 0).all()


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog"])
def test_a_larger_image_is_distorted_about_as_much(name):
    # The same shapes in the same places at both sizes, but sharper at the larger one, and other angles and layers.
    small, large = (distortion(shapes(40, seed=1, image_size=size).images, name, 5) for size in (32, 96))
    assert 0.6 < large / small < 1.6


@pytest.mark.parametrize("name", KEEP_A_CONSTANT)
def test_what_moves_or_averages_pixels_leaves_a_constant_image_alone(name):
    images = constant(200, 31, 90, count=3)
    for severity in SEVERITIES:
        assert np.array_equal(corrupt(images, name, severity, 0), images)


@pytest.mark.parametrize(
    "name, severity, std",
    [
        ("gaussian_noise", 1, 0.04),
        ("gaussian_noise", 5, 0.1),
        ("shot_noise", 1, (128 / 255 / 500) ** 0.5),
        ("shot_noise", 5, (128 / 255 / 50) ** 0.5),
    ],
)
def test_noise_has_the_standard_deviation_of_its_severity_and_no_mean(name, severity, std):
    noise = corrupt(constant(128, 128, 128), name, severity, 0) / 255 - 128 / 255
    # Of 61,440 values: four standard errors are 1.1% of the standard deviation and 1.6% of it for the mean.
    np.testing.assert_allclose(noise.std(), std, rtol=0.015)
    assert abs(noise.mean()) < 0.02 * std


@pytest.mark.parametrize("severity, share", [(1, 0.01), (5, 0.07)])
def test_impulse_noise_makes_its_share_of_values_black_or_white(severity, share):
    images = corrupt(constant(128, 128, 128), "impulse_noise", severity, 0)
    # Four standard errors of 61,440 draws.
    tolerance = 4 * (share / 2 / images.size) ** 0.5
    assert abs(np.mean(images == 0) - share / 2) < tolerance
    assert abs(np.mean(images == 255) - share / 2) < tolerance
    assert np.isin(images, (0, 128, 255)).all()


def direct(images, kernel):
    """Images convolved with a symmetric kernel, one output pixel after the other, the border pixel repeated."""
    reach = len(kernel) // 2
    padded = np.pad(images.astype(float), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    result = np.empty(images.shape)
    for i, j in np.ndindex(images.shape[1:3]):
        window = padded[:, i : i + len(kernel), j : j + len(kernel)]
        result[:, i, j] = (window * kernel[None, :, :, None]).sum((1, 2))
    return result


def test_blur_is_the_direct_convolution_with_a_gaussian(images):
    kernel = np.array([[np.exp(-(i * i + j * j) / 2) for i in range(-4, 5)] for j in range(-4, 5)])
    blurred = parts.blur(floats(images[:2]), 1).transpose(0, 2, 3, 1) * 255
    np.testing.assert_allclose(blurred, direct(images[:2], kernel / kernel.sum()), atol=0.01)


@pytest.mark.parametrize("severity, kernel", [(4, [[0, 1, 0], [1, 1, 1], [0, 1, 0]]), (5, np.ones((3, 3)))])
def test_defocus_blur_averages_over_a_disc(images, severity, kernel):
    # Radius 1 is a pixel and its four neighbours, 1.5 the diagonal ones too; their rims are hardly softened.
    expected = direct(images[:2], kernel / np.sum(kernel))
    np.testing.assert_allclose(corrupt(images[:2], "defocus_blur", severity, 0), expected, atol=0.51)


def test_a_smeared_dot_leaves_half_a_gaussian_on_its_trail():
    dot = np.zeros((2, 1, 32, 32), np.float32)
    dot[:, :, 20, 24] = 1
    left, up = parts.smear(dot, 8, 2, np.array([0, np.pi / 2]))[:, 0]
    weights = np.exp(-(np.arange(9) ** 2) / 8)
    np.testing.assert_allclose(left[20, 24:15:-1], weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(up[20:11:-1, 24], weights / weights.sum(), rtol=1e-5)
    np.testing.assert_allclose([left.sum(), up.sum()], 1, rtol=1e-5)


def test_zoom_blur_flattens_a_ramp_about_the_middle():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None] * 8, (1, 32, 32, 3))
    factors = np.concatenate([[1], 1 + np.arange(26) / 100])
    expected = 8 * (15.5 + (np.arange(32) - 15.5) * np.mean(1 / factors))
    np.testing.assert_allclose(corrupt(ramp, "zoom_blur", 5, 0)[0, 0, :, 0], expected, atol=0.501)


def test_glass_blur_takes_every_pixel_from_its_neighbourhood():
    # At severity 1 the blurs do nothing, so every value is one of a neighbour a pixel up and to the left at most.
    places = np.stack([*np.indices((32, 32)), np.zeros((32, 32))], axis=-1).astype(np.uint8)[None]
    moves = places.astype(int) - corrupt(places, "glass_blur", 1, 0)
    assert np.unique(moves[0, :, :, :2]).tolist() == [0, 1]


def test_warped_images_are_read_between_pixels_and_mirrored_at_the_border():
    x = np.random.default_rng(0).random((1, 1, 8, 9), np.float32)
    rows, columns = np.indices((1, 8, 9), np.float32)[1:]
    between = parts.warp(x, rows, columns + 0.5)
    np.testing.assert_allclose(between[..., :-1], (x[..., :-1] + x[..., 1:]) / 2, rtol=1e-5)
    np.testing.assert_array_equal(parts.warp(x, rows - 2, columns)[0, 0], x[0, 0, [2, 1, 0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(parts.warp(x, rows + 2, columns)[0, 0], x[0, 0, [2, 3, 4, 5, 6, 7, 6, 5]])


def test_snow_on_black_falls_twice_turned_by_half():
    snow = corrupt(constant(0, 0, 0), "snow", 2, 0)
    assert np.array_equal(snow, snow[:, ::-1, ::-1])
    # A veil of half of 1 - 0.9, and flakes that can be seen on it.
    assert np.bincount(snow.ravel()).argmax() == 13
    assert (snow.max((1, 2, 3)) > 50).all()


def test_frost_is_crystals_and_no_even_veil():
    ice = corrupt(constant(0, 0, 0), "frost", 5, 0)[..., 2]
    # 0.45 of 255 is 115: the crystals reach it, and a fourth of the window is left almost clear.
    assert (ice.max((1, 2)) > 105).all()
    assert np.median(np.percentile(ice, 25, axis=(1, 2))) < 40


def test_fog_never_makes_an_image_lighter_than_it_is(images):
    for severity in SEVERITIES:
        foggy = corrupt(images, "fog", severity, 0)
        assert (foggy.max((1, 2, 3)) <= images.max((1, 2, 3))).all()


def test_clouds_fill_the_range_from_0_to_1_and_are_smooth_where_they_decay_fast():
    rough, smooth = (parts.plasma([np.random.default_rng(0)], 64, 64, decay)[0] for decay in (1.2, 3))
    assert (smooth.min(), smooth.max()) == (0, 1)
    assert abs(np.diff(smooth)).mean() < abs(np.diff(rough)).mean() / 2


def test_brightness_adds_to_the_value_of_a_grey_image():
    # 0.05 and 0.3 of 255.
    for severity, more in ((1, 12.75), (5, 76.5)):
        result = corrupt(constant(100, 100, 100, count=1), "brightness", severity, 0)
        np.testing.assert_allclose(result, 100 + more, atol=0.501)


def test_brightness_adds_to_the_value_of_hsv():
    colours = np.random.default_rng(0).integers(0, 256, (64, 3))
    colours[:3] = [0, 0, 0], [90, 90, 90], [255, 255, 255]
    hsv = [colorsys.rgb_to_hsv(*colour) for colour in colours / 255]
    expected = [255 * np.array(colorsys.hsv_to_rgb(h, s, min(v + 0.2, 1))) for h, s, v in hsv]
    result = corrupt(colours.astype(np.uint8).reshape(1, 8, 8, 3), "brightness", 4, 0)
    np.testing.assert_allclose(result.reshape(64, 3), expected, atol=0.501)


@pytest.mark.parametrize("severity, factor", [(1, 0.75), (5, 0.15)])
def test_contrast_keeps_the_mean_and_shrinks_the_deviation(images, severity, factor):
    result = corrupt(images, "contrast", severity, 0)
    # Quarters of a grey level are rounded, halves always upwards: an eighth at worst, and a little for chance.
    np.testing.assert_allclose(result.mean((1, 2)), images.mean((1, 2)), atol=0.2)
    np.testing.assert_allclose(result.std((1, 2)), factor * images.std((1, 2)), atol=0.2)


def test_pixelate_by_a_half_averages_blocks_of_four_pixels(images):
    pixelate, _ = CORRUPTIONS["pixelate"]
    blocks = images.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4))
    expected = blocks.repeat(2, 1).repeat(2, 2)
    # Pillow rounds to bytes after the rows and again after the columns.
    np.testing.assert_allclose(255 * pixelate(floats(images), None, 0.5).transpose(0, 2, 3, 1), expected, atol=1.01)


def test_jpeg_compression_is_a_round_trip_through_pillow(images):
    for image, result in zip(images, corrupt(images, "jpeg_compression", 5, 0), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=40)
        assert np.array_equal(np.asarray(Image.open(file)), result)


def test_an_unknown_corruption_is_refused_with_the_known_ones(images):
    with pytest.raises(UserError, match="gaussian_noise, .*jpeg_compression, but it is 'rain'"):
        corrupt(images, "rain", 1, 0)


@pytest.mark.parametrize("severity", [0, 6, 2.5, "3", None])
def test_a_severity_beyond_1_to_5_is_refused(images, severity):
    with pytest.raises(UserError, match="severity is 1, 2, 3, 4 or 5"):
        corrupt(images, "fog", severity, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 1), np.uint8),
        np.zeros((2, 7, 32, 3), np.uint8),
    ],
)
def test_images_that_are_no_batch_of_rgb_bytes_are_refused(wrong):
    with pytest.raises(UserError, match="uint8 with sides of 8 or more"):
        corrupt(wrong, "fog", 1, 0)


def test_all_corruptions_of_a_hundred_images_take_less_than_two_and_a_half_seconds_of_one_core():
    images = shapes(100, seed=0).images
    start = time.thread_time()
    for name in NAMES:
        for severity in SEVERITIES:
            corrupt(images, name, severity, 0)
    assert time.thread_time() - start < 2.5
