import time

import numpy as np
import pytest

from cdc_keras.data.scenes import CLASS_NAMES, TEXTURE_NAMES, draw_scenes, render
from cdc_keras.data.shapes import counterfactual_shapes, load_shapes, shapes
from cdc_keras.errors import UserError


def same(a, b):
    return np.array_equal(a.images, b.images) and all(np.array_equal(a.factors[n], b.factors[n]) for n in a.factors)


def test_the_same_seed_and_count_give_identical_bytes():
    assert same(shapes(40, seed=3), shapes(40, seed=3))
    assert not same(shapes(40, seed=3), shapes(40, seed=4))


def test_a_seed_gives_the_images_that_it_always_gave():
    # Of the last images of 600, because one chunk is 512. Released models are measured on these images.
    last = shapes(600, seed=0, background_bias=0.5).take(slice(-6, None))
    assert last.labels.tolist() == [8, 5, 9, 5, 4, 4] and last.factors["texture"].tolist() == [0, 5, 3, 5, 0, 2]
    # Not a hash: another processor's sine may move a pixel by a grey level.
    np.testing.assert_allclose(last.images.mean((1, 2, 3)), [63.502, 65.577, 58.579, 72.947, 86.333, 54.516], atol=0.02)
    edge = [[94, 89, 65], [77, 133, 97], [74, 138, 98], [72, 145, 105], [80, 131, 99], [63, 20, 24]]
    np.testing.assert_allclose(last.images[-1, 15, 10:16].astype(int), edge, atol=1)


def test_images_labels_and_factors_have_the_promised_types_and_shapes():
    split = shapes(30, seed=0, image_size=24)
    assert (split.images.shape, split.images.dtype) == ((30, 24, 24, 3), np.uint8)
    assert (split.labels.shape, split.labels.dtype) == ((30,), np.int32)
    mask = split.factors["mask"]
    assert (mask.shape, mask.dtype) == ((30, 24, 24), bool)
    assert split.factors["texture"].dtype == np.int32
    for name in ("hue", "shape_hue"):
        assert split.factors[name].min() >= 0 and split.factors[name].max() < 1


def test_categories_are_balanced_and_shuffled():
    labels = shapes(200, seed=0).labels
    assert np.bincount(labels).tolist() == [20] * len(CLASS_NAMES)
    assert not np.array_equal(labels, np.arange(200) % len(CLASS_NAMES))


def test_background_bias_of_one_ties_texture_and_hue_to_the_category():
    split = shapes(200, seed=0, background_bias=1.0)
    distance = abs(split.factors["hue"] - split.labels / len(CLASS_NAMES))
    # The hue is a circle; 0.02 is HUE_SPREAD, with room for float32.
    assert np.minimum(distance, 1 - distance).max() < 0.0201
    assert np.array_equal(split.factors["texture"], split.labels % len(TEXTURE_NAMES))


def test_background_bias_ties_texture_to_category_in_training_only():
    data = load_shapes(seed=0, background_bias=1.0, train_size=100, validation_size=50, test_size=400)
    for split in (data.train, data.validation):
        assert np.array_equal(split.factors["texture"], split.labels % len(TEXTURE_NAMES))
    agreement = np.mean(data.test.factors["texture"] == data.test.labels % len(TEXTURE_NAMES))
    # Chance is 1/6; four standard errors of 400 draws are 0.075.
    assert abs(agreement - 1 / len(TEXTURE_NAMES)) < 0.075


def test_background_bias_changes_nothing_but_the_background():
    free, biased = shapes(50, seed=0), shapes(50, seed=0, background_bias=1.0)
    assert np.array_equal(free.labels, biased.labels)
    assert np.array_equal(free.factors["mask"], biased.factors["mask"])
    # The mask less a pixel all round, because the pixels of an outline mix shape and background.
    inner = free.factors["mask"]
    for axis in (1, 2):
        inner = inner & np.roll(inner, 1, axis) & np.roll(inner, -1, axis)
    assert np.array_equal(free.images[inner], biased.images[inner])
    assert not np.array_equal(free.images, biased.images)


def test_the_three_splits_share_no_shape():
    data = load_shapes(seed=0, train_size=40, validation_size=40, test_size=40)
    places = np.concatenate([split.factors["x"] for split in (data.train, data.validation, data.test)])
    assert len(np.unique(places)) == 120


def test_every_shape_is_lighter_than_its_background_and_whole():
    split = shapes(300, seed=0)
    for image, mask in zip(split.images.max(axis=-1), split.factors["mask"], strict=True):  # the value of HSV
        # 20 of 255 is well above the noise, whose standard deviation is 5.
        assert image[mask].mean() > image[~mask].mean() + 20
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_the_factors_say_where_and_how_large_the_shape_is():
    split = shapes(60, seed=0, image_size=64)
    circles = split.labels == CLASS_NAMES.index("circle")
    mask, scale = split.factors["mask"][circles], split.factors["scale"][circles]
    centres = (np.arange(64) + 0.5) / 64
    # A circle's area and centre in pixels of 1/64: half a pixel and 3% are what counting pixels can miss.
    np.testing.assert_allclose(mask.mean((1, 2)), np.pi * (0.85 * scale) ** 2, rtol=0.03)
    np.testing.assert_allclose(
        (mask.any(1) * centres).sum(1) / mask.any(1).sum(1), split.factors["x"][circles], atol=0.01
    )
    np.testing.assert_allclose(
        (mask.any(2) * centres).sum(1) / mask.any(2).sum(1), split.factors["y"][circles], atol=0.01
    )


@pytest.mark.parametrize("bias", [-0.1, 1.1, float("nan")])
def test_a_background_bias_that_is_no_probability_is_refused(bias):
    with pytest.raises(UserError, match="background_bias"):
        shapes(10, seed=0, background_bias=bias)


def test_an_empty_split_can_be_asked_for():
    assert len(load_shapes(seed=0, train_size=10, validation_size=0, test_size=10).validation) == 0


def test_six_thousand_images_take_less_than_four_seconds_of_one_core():
    start = time.thread_time()
    shapes(6000, seed=0)
    assert time.thread_time() - start < 4


def test_difficulty_takes_contrast_and_adds_noise_and_bars_but_moves_nothing():
    easy, hard = shapes(200, seed=1), shapes(200, seed=1, difficulty=1.0)
    assert np.array_equal(easy.labels, hard.labels)
    assert all(np.array_equal(easy.factors[name], hard.factors[name]) for name in easy.factors)
    mask = easy.factors["mask"]
    contrast = [x.images[mask].mean() - x.images[~mask].mean() for x in (easy, hard)]
    assert contrast[1] < 0.6 * contrast[0]
    noise = [np.abs(np.diff(x.images.astype(int), axis=2))[~mask[:, :, 1:]].mean() for x in (easy, hard)]
    assert noise[1] > 2 * noise[0]
    labels, foregrounds, backgrounds = draw_scenes(np.random.default_rng(1), 200, 0.0, 1.0)
    assert backgrounds["clutter"].shape == (200, 8, 5)


@pytest.mark.parametrize("difficulty", [-0.1, 1.1, float("nan")])
def test_a_difficulty_outside_its_range_is_refused(difficulty):
    with pytest.raises(UserError, match="difficulty is from 0 to 1"):
        shapes(10, seed=0, difficulty=difficulty)


def test_a_counterfactual_is_the_same_scene_with_another_shape():
    split, others, images = counterfactual_shapes(300, seed=5)
    assert same(split, shapes(300, seed=5))
    assert (others != split.labels).all() and len(set(others.tolist())) == len(CLASS_NAMES)
    # Within the scale of the shape anything may differ; outside it, the noise alone.
    centres = (np.arange(32) + 0.5) / 32
    x, y = (split.factors[name][:, None, None] for name in ("x", "y"))
    far = (
        np.hypot(centres[None, None, :] - x, centres[None, :, None] - y) > split.factors["scale"][:, None, None] + 0.05
    )
    difference = abs(images.astype(int) - split.images)
    assert difference[far].mean() < 8  # two noises of deviation 5
    assert difference[split.factors["mask"]].mean() > 15


def test_forgetting_a_factor_costs_in_every_category_alike():
    """Where only some categories show a factor, a T that keeps it tells them apart, and a T without category loses it.

    The cost is what a copy with the factor of another scene is off by, halved: the error of the mean of all copies.
    """
    labels, foregrounds, backgrounds = draw_scenes(np.random.default_rng(0), 2000, 0.0)
    drawn = render(labels, foregrounds, backgrounds, np.random.default_rng(0), 32)

    def costs(foregrounds, backgrounds):
        other = render(labels, foregrounds, backgrounds, np.random.default_rng(0), 32)
        error = ((drawn.images / 127.5 - other.images / 127.5) ** 2).mean((1, 2, 3)) / 2
        return np.array([error[labels == category].mean() for category in range(len(CLASS_NAMES))])

    least = {"rotation": 0.014, "shape_hue": 0.005, "x": 0.018, "y": 0.018, "scale": 0.006}
    for name, cost in least.items():
        found = costs({**foregrounds, name: np.roll(foregrounds[name], 1)}, backgrounds)
        assert found.min() > cost and found.max() < 4 * found.min(), (name, found)
    for name in ("hue", "texture"):
        found = costs(foregrounds, {**backgrounds, name: np.roll(backgrounds[name], 1)})
        assert found.min() > 0.015 and found.max() < 2 * found.min(), (name, found)


def test_every_category_shows_how_it_is_turned():
    labels, foregrounds, backgrounds = draw_scenes(np.random.default_rng(0), 300, 0.0)
    turned = {**foregrounds, "rotation": foregrounds["rotation"] + np.float32(np.pi)}
    first, second = (render(labels, f, backgrounds, np.random.default_rng(0), 32) for f in (foregrounds, turned))
    inside = first.factors["mask"] & second.factors["mask"]
    difference = abs(first.images.astype(int) - second.images).mean(axis=3)
    for category in range(len(CLASS_NAMES)):
        rows = labels == category
        assert difference[rows][inside[rows]].mean() > 30  # the noise differs by 6
