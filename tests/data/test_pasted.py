"""Objects on other backgrounds: what is where, checked on images of flat colours."""

import dataclasses

import numpy as np
import pytest

from cdc_keras.data.dataset import Split
from cdc_keras.data.on_disk import Rows
from cdc_keras.data.pasted import PASTED, pasted_variants
from cdc_keras.data.shapes import shapes
from cdc_keras.errors import UserError

CLASSES, COUNT, SIZE = 3, 24, 32
OBJECT, BACKGROUND = 200, 20


@pytest.fixture(scope="module")
def split():
    """Squares in the middle. An image's number is in the blue of its background, that of its category in the green."""
    images = np.full((COUNT, SIZE, SIZE, 3), BACKGROUND, np.uint8)
    labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
    images[..., 1], images[..., 2] = labels[:, None, None], np.arange(COUNT)[:, None, None]
    mask = np.zeros((COUNT, SIZE, SIZE), bool)
    mask[:, 10:22, 12:20] = True
    images[mask] = OBJECT
    return Split(images, labels, {"mask": mask, "place": np.arange(COUNT)})


@pytest.fixture(scope="module")
def variants(split):
    return pasted_variants(split, CLASSES, seed=0)


def test_labels_and_factors_are_those_of_the_objects(split, variants):
    assert tuple(variants) == PASTED
    for name, variant in variants.items():
        assert np.array_equal(variant.labels, split.labels) and variant.images.dtype == np.uint8
        assert set(variant.factors) == (set() if name == "only_bg" else {"mask", "place"})
    assert np.array_equal(variants["original"].images, split.images)


def test_images_on_disk_are_exchanged_as_those_in_memory(split, variants):
    stored = dataclasses.replace(split, images=Rows(split.images[::-1], np.arange(COUNT)[::-1]))
    for name, variant in pasted_variants(stored, CLASSES, seed=0).items():
        assert np.array_equal(variant.images, variants[name].images)


@pytest.mark.parametrize("name", ["only_fg", "mixed_same", "mixed_rand", "mixed_next"])
def test_the_object_stays_and_nothing_else_of_its_image(split, variants, name):
    images = variants[name].images
    assert (images[:, 12:20, 14:18] == OBJECT).all()
    far = images[:, :7]
    assert (far == 0).all() if name == "only_fg" else (far[..., 0] == BACKGROUND).all()
    if name != "only_fg":
        assert (far[..., 2] == far[:, :1, :1, 2]).all()  # of one image
        assert (far[:, 0, 0, 2] != np.arange(COUNT)).all()  # and of another than its own


def test_the_background_is_of_the_category_that_the_name_says(split, variants):
    category = {name: variants[name].images[:, 0, 0, 1] for name in ("mixed_same", "mixed_rand", "mixed_next")}
    assert np.array_equal(category["mixed_same"], split.labels)
    assert np.array_equal(category["mixed_next"], (split.labels + 1) % CLASSES)
    assert set(category["mixed_rand"] - split.labels) > {0}


def test_a_background_shows_nothing_of_its_object(variants, split):
    assert np.array_equal(variants["only_bg"].images, np.broadcast_to(split.images[:, :1, :1], split.images.shape))


def test_the_edge_is_soft_and_leaves_no_seam(variants):
    row = variants["only_fg"].images[0, 16, :, 0].astype(int)
    assert row.max() == OBJECT and 0 < row[11] < OBJECT and 0 < row[12] < OBJECT
    assert abs(np.diff(row)).max() < OBJECT  # without it, one step


def test_an_object_that_fills_the_image_has_a_flat_background():
    images = np.full((4, 8, 8, 3), 50, np.uint8)
    images[:, 0, 0] = 90
    mask = np.ones((4, 8, 8), bool)
    mask[:, 0, 0] = False
    found = pasted_variants(Split(images, np.array([0, 0, 1, 1]), {"mask": mask}), 2, seed=0)["only_bg"].images
    assert (found == 90).all()
    mask[:] = True
    found = pasted_variants(Split(images, np.array([0, 0, 1, 1]), {"mask": mask}), 2, seed=0)["only_bg"].images
    assert (found == 128).all()
    mask[:] = False
    found = pasted_variants(Split(images, np.array([0, 0, 1, 1]), {"mask": mask}), 2, seed=0)["only_bg"].images
    assert np.array_equal(found, images)


def test_the_seed_decides():
    split = shapes(60, seed=3)
    first, again, other = (pasted_variants(split, 10, seed=seed)["mixed_rand"].images for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_too_few_images_or_no_masks_are_answered_with_one_sentence(split):
    with pytest.raises(UserError, match="where the objects' masks are known"):
        pasted_variants(Split(split.images, split.labels), CLASSES, seed=0)
    with pytest.raises(UserError, match="every category needs two images to score; category number 2 has 1"):
        pasted_variants(split.take(slice(5)), CLASSES, seed=0)
