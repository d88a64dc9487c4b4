import copy

import numpy as np
import pytest

from cdc_keras.data.backgrounds import BACKGROUNDS, background_variants
from cdc_keras.data.scenes import CLASS_NAMES, TEXTURE_NAMES
from cdc_keras.data.shapes import load_shapes, shapes
from cdc_keras.errors import UserError


def same(a, b):
    return (
        np.array_equal(a.images, b.images)
        and list(a.factors) == list(b.factors)
        and all(np.array_equal(a.factors[n], b.factors[n]) for n in a.factors)
    )


def margins(mask):
    """(inside, outside): the mask and its complement less the pixels that mix both.

    That is a pixel all round on the inside, three on the outside: the tips of stars and crescents fade out slowly.
    """
    inside, outside = mask, ~mask
    for axis in (1, 2):
        inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
        outside = np.all([np.roll(outside, step, axis) for step in range(-3, 4)], 0)
    return inside, outside


@pytest.fixture(scope="module")
def variants():
    return background_variants(600, seed=0, background_bias=1.0)


@pytest.fixture
def noiseless(monkeypatch):
    monkeypatch.setattr("cdc_keras.data.scenes.NOISE", 0)
    return background_variants(60, seed=0, background_bias=1.0)


def sources(variant, originals):
    """For each image of `variant` the row of the original whose background it has; no two have the same phase."""
    _, outside = margins(variant.factors["mask"])
    _, visible = margins(originals.factors["mask"])
    rows = []
    for image, free in zip(variant.images.astype(int), outside, strict=True):
        # One grey level is room for the last bit of a cosine, which may depend on the place in the array.
        equal = (abs(image - originals.images) <= 1).all(-1) | ~(free & visible)
        (row,) = np.flatnonzero(equal.all((1, 2)))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("seed, bias, image_size", [(0, 1.0, 32), (5, 0.5, 16), (np.random.SeedSequence(2), 0.0, 32)])
def test_original_is_what_shapes_gives(seed, bias, image_size):
    made = background_variants(40, seed=seed, background_bias=bias, image_size=image_size)
    assert same(made["original"], shapes(40, seed=seed, background_bias=bias, image_size=image_size))


def test_every_variant_has_the_same_labels_in_the_same_order(variants):
    assert tuple(variants) == BACKGROUNDS
    for split in variants.values():
        assert np.array_equal(split.labels, variants["original"].labels)
        assert (split.images.shape, split.images.dtype) == ((600, 32, 32, 3), np.uint8)
        assert all(len(values) == 600 for values in split.factors.values())


def test_mixed_same_takes_its_background_from_another_image_of_the_category(noiseless):
    rows = sources(noiseless["mixed_same"], noiseless["original"])
    labels = noiseless["original"].labels
    assert np.array_equal(labels[rows], labels) and (rows != np.arange(60)).all()


def test_mixed_rand_takes_its_background_from_another_image(noiseless):
    rows = sources(noiseless["mixed_rand"], noiseless["original"])
    assert (rows != np.arange(60)).all()


@pytest.mark.parametrize("variant", ["mixed_same", "mixed_rand"])
def test_the_factors_of_a_mixed_image_are_those_of_the_background_it_has(noiseless, variant):
    original, mixed = noiseless["original"], noiseless[variant]
    rows = sources(mixed, original)
    for name in ("texture", "hue"):
        assert np.array_equal(mixed.factors[name], original.factors[name][rows])
    for name in ("shape_hue", "x", "y", "scale", "rotation", "mask"):
        assert np.array_equal(mixed.factors[name], original.factors[name])


def test_mixed_same_keeps_the_texture_and_hue_of_the_category(variants):
    split = variants["mixed_same"]
    distance = abs(split.factors["hue"] - split.labels / len(CLASS_NAMES))
    assert np.array_equal(split.factors["texture"], split.labels % len(TEXTURE_NAMES))
    # The hue is a circle; 0.02 is HUE_SPREAD, with room for float32.
    assert np.minimum(distance, 1 - distance).max() < 0.0201
    assert not np.array_equal(split.factors["hue"], variants["original"].factors["hue"])


def test_mixed_rand_knows_nothing_of_the_category(variants):
    split = variants["mixed_rand"]
    # With full bias the hue says whose background it is: ten hues, 0.1 apart.
    owner = np.round(split.factors["hue"] * len(CLASS_NAMES)).astype(int) % len(CLASS_NAMES)
    # Chance is 1/10, the own category as likely as any; four standard errors of 600 draws are 0.049, of 60 draws 0.155.
    assert abs(np.mean(owner == split.labels) - 0.1) < 0.049
    for category in range(len(CLASS_NAMES)):
        shares = np.bincount(owner[split.labels == category], minlength=len(CLASS_NAMES)) / 60
        assert abs(shares - 0.1).max() < 0.155


def test_mixed_rand_takes_every_image_of_a_category_as_often():
    second = []
    for seed in range(40):
        made = background_variants(20, seed=seed, background_bias=0.0, image_size=8)
        original, hue = made["original"], made["mixed_rand"].factors["hue"]
        # No two hues are equal, so the hue says which image lent its background.
        lender = np.argmax(original.factors["hue"] == hue[:, None], 1)
        second += [original.labels[row] in original.labels[:row] for row in lender]
    # The later of two images half the time; four standard errors of 800 draws are 0.071.
    assert abs(np.mean(second) - 0.5) < 0.071


def test_the_shape_is_the_same_pixel_by_pixel_wherever_it_is(variants):
    inside, _ = margins(variants["original"].factors["mask"])
    for name in ("mixed_same", "mixed_rand", "only_fg"):
        assert np.array_equal(variants[name].images[inside], variants["original"].images[inside])
        assert np.array_equal(variants[name].factors["mask"], variants["original"].factors["mask"])


def test_only_fg_is_black_around_the_shape(noiseless):
    split = noiseless["only_fg"]
    _, outside = margins(split.factors["mask"])
    assert not split.images[outside].any() and split.images[split.factors["mask"]].any()
    assert not {"texture", "hue"} & set(split.factors)


def test_only_bg_is_the_original_with_no_shape(variants):
    original, split = variants["original"], variants["only_bg"]
    _, outside = margins(original.factors["mask"])
    assert np.array_equal(split.images[outside], original.images[outside])
    # A background's HSV value ends at 0.45, 115 of 255; six standard deviations of the noise are 31.
    assert split.images.max() < 115 + 31
    assert set(split.factors) == {"texture", "hue", "mask"} and not split.factors["mask"].any()


def test_all_variants_have_the_noise_of_the_original(variants, monkeypatch):
    monkeypatch.setattr("cdc_keras.data.scenes.NOISE", 0)
    clean = background_variants(600, seed=0, background_bias=1.0)
    noise = {name: variants[name].images.astype(int) - clean[name].images for name in BACKGROUNDS}
    # Where nothing is cut off at 0 or 255, as far as rounding to grey levels leaves it.
    for name in BACKGROUNDS:
        whole = [(v.images > 0) & (v.images < 255) for v in (variants[name], variants["original"])]
        assert abs(noise[name] - noise["original"])[whole[0] & whole[1]].max() <= 1


def test_the_same_arguments_give_identical_variants_and_leave_the_seed_alone():
    seed = np.random.SeedSequence(3)
    first, second = (background_variants(30, seed=seed, background_bias=0.9) for _ in range(2))
    fresh = background_variants(30, seed=copy.deepcopy(seed), background_bias=0.9)
    for name in BACKGROUNDS:
        assert same(first[name], second[name]) and same(first[name], fresh[name])
    other = background_variants(30, seed=4, background_bias=0.9)
    assert not any(same(first[name], other[name]) for name in BACKGROUNDS)


def test_pairs_depend_neither_on_the_bias_nor_on_the_image_size(monkeypatch):
    monkeypatch.setattr("cdc_keras.data.scenes.NOISE", 0)
    free, small = (background_variants(60, seed=0, background_bias=b, image_size=s) for b, s in [(0.0, 32), (1.0, 24)])
    for name in ("mixed_same", "mixed_rand"):
        assert np.array_equal(sources(free[name], free["original"]), sources(small[name], small["original"]))


def test_an_integer_seed_repeats_no_image_of_a_data_set_of_that_seed():
    data = load_shapes(seed=0, background_bias=1.0, train_size=40, validation_size=40, test_size=40)
    made = background_variants(40, seed=0, background_bias=1.0)["original"]
    places = [split.factors["x"] for split in (data.train, data.validation, data.test, made)]
    assert len(np.unique(np.concatenate(places))) == 160


def test_two_images_of_every_category_are_enough():
    made = background_variants(20, seed=0, background_bias=1.0)
    assert not np.array_equal(made["mixed_same"].images, made["original"].images)


@pytest.mark.parametrize("count", [0, 10, 19])
def test_a_category_with_a_single_image_is_refused(count):
    with pytest.raises(UserError, match=f"count must be 20 or more.* it is {count}"):
        background_variants(count, seed=0, background_bias=1.0)


@pytest.mark.parametrize("wrong", [{"background_bias": 1.1}, {"background_bias": 1.0, "image_size": 7}])
def test_what_shapes_refuses_is_refused(wrong):
    with pytest.raises(UserError, match=list(wrong)[-1]):
        background_variants(20, seed=0, **wrong)
