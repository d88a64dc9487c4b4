"""Plans of an epoch and the batches they become."""

import numpy as np
import pytest

from cdc_keras.data import Split
from cdc_keras.data.pipeline import epoch_plan, evaluation_batches, pick_pixels, scale, training_batches

SIZE = 12
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(23, SIZE, SIZE, 3), dtype=np.uint8)
# An example is known by its label.
SPLIT = Split(IMAGES, np.arange(23, dtype=np.int32))
PLAN = {"batch_size": 5, "seed": 3, "epoch": 1, "crop_padding": 4, "flip": True}


def labels_of(batches):
    return [np.array(labels).tolist() for _, labels in batches]


def test_every_crop_and_flip_is_exactly_pad_slice_and_flip():
    pad = 4
    down, right = np.meshgrid(np.arange(2 * pad + 1), np.arange(2 * pad + 1))
    plan = epoch_plan(2000, SIZE, batch_size=2000, seed=0, epoch=0, crop_padding=pad, flip=True)
    images = IMAGES[plan["rows"][0] % len(IMAGES)]
    crops = np.array(pick_pixels(images, plan["source_rows"][0], plan["source_columns"][0]))

    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    candidates = {(i, j): padded[:, i : i + SIZE, j : j + SIZE] for i, j in zip(down.flat, right.flat, strict=True)}
    found = set()
    for n, crop in enumerate(crops):
        for (i, j), candidate in candidates.items():
            for flipped in (False, True):
                if np.array_equal(crop, candidate[n, :, ::-1] if flipped else candidate[n]):
                    found.add((n, i, j, flipped))
    assert {n for n, *_ in found} == set(range(2000))  # every image is one of them
    assert len(found) == 2000  # and only one
    assert {tuple(rest) for _, *rest in found} == {(i, j, f) for i, j in candidates for f in (False, True)}  # all occur


def test_without_padding_and_flip_images_stay_as_they_are():
    plan = epoch_plan(23, SIZE, batch_size=5, seed=0, epoch=0)
    for step in range(4):
        picked = pick_pixels(IMAGES[plan["rows"][step]], plan["source_rows"][step], plan["source_columns"][step])
        np.testing.assert_array_equal(picked, IMAGES[plan["rows"][step]])


def test_half_of_the_images_are_flipped():
    columns = epoch_plan(10_000, SIZE, batch_size=10_000, seed=0, epoch=0, flip=True)["source_columns"][0]
    share = (columns[:, 0] > columns[:, -1]).mean()
    assert abs(share - 0.5) < 0.025  # five standard deviations


def test_a_training_epoch_takes_every_example_at_most_once_in_full_batches():
    labels = labels_of(training_batches(SPLIT, SIZE, **PLAN))
    assert [len(batch) for batch in labels] == [5, 5, 5, 5]
    assert len(set(sum(labels, []))) == 20


def test_the_same_seed_and_epoch_give_the_same_plan():
    first, second = (epoch_plan(23, SIZE, **PLAN) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}])
def test_another_seed_or_epoch_gives_another_order_and_other_crops(other):
    first, second = epoch_plan(23, SIZE, **PLAN), epoch_plan(23, SIZE, **(PLAN | other))
    assert all((first[name] != second[name]).any() for name in ("rows", "source_rows", "source_columns"))


def test_an_epoch_resumes_in_its_middle_with_identical_batches():
    whole = list(training_batches(SPLIT, SIZE, **PLAN))
    rest = list(training_batches(SPLIT, SIZE, first_step=2, **PLAN))
    assert len(rest) == 2
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[2:], strict=True):
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(images, expected_images)


@pytest.mark.parametrize("batch_size", [5, 23, 40])
def test_evaluation_covers_every_example_once_in_order_unchanged(batch_size):
    batches = list(evaluation_batches(SPLIT, SIZE, batch_size=batch_size))
    assert sum(labels_of(batches), []) == list(range(23))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), scale(IMAGES))


def test_training_images_are_the_planned_pixels_scaled():
    plan = epoch_plan(23, SIZE, **PLAN)
    images, labels = next(iter(training_batches(SPLIT, SIZE, **PLAN)))
    for n, label in enumerate(np.array(labels)):
        pixels = IMAGES[label][plan["source_rows"][0, n]][:, plan["source_columns"][0, n]]
        np.testing.assert_array_equal(images[n], pixels.astype("float32") / np.float32(127.5) - 1)


def test_scaling_maps_0_to_minus_1_and_255_to_1_exactly():
    np.testing.assert_array_equal(scale(np.array([0, 255], np.uint8)), np.array([-1, 1], np.float32))


def test_a_batch_larger_than_the_split_is_an_error():
    with pytest.raises(ValueError, match="a batch of 24 does not fit into 23 training examples"):
        training_batches(SPLIT, SIZE, **(PLAN | {"batch_size": 24}))
