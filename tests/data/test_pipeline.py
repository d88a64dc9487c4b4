"""Plans of an epoch and the batches they become."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cdc_keras.data.dataset import Split, StreamSplit, numbered
from cdc_keras.data.on_disk import Rows
from cdc_keras.data.pipeline import (
    augment,
    epoch_plan,
    evaluation_batches,
    evaluation_steps,
    gather,
    in_batches,
    scale,
    training_batches,
)
from cdc_keras.devices import distribution

SIZE = 12
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(23, SIZE, SIZE, 3), dtype=np.uint8)
# An example is known by its label.
SPLIT = Split(IMAGES, np.arange(23, dtype=np.int32))
ON_DISK = Split(Rows(np.concatenate([IMAGES[:2], IMAGES[::-1]]), np.arange(24, 1, -1)), SPLIT.labels)
PLAN = {"batch_size": 5, "seed": 3, "epoch": 1, "crop_padding": 4, "flip": True}


def step_of(plan, step):
    return {name: array[step] for name, array in plan.items()}


def planned(images, plan):
    """NumPy's reference for `augment`: pad, slice, flip, one image after the other."""
    pad = 4
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    moves = zip(padded, plan["down"] + pad, plan["right"] + pad, plan["flipped"], strict=True)
    crops = [(p[i : i + SIZE, j : j + SIZE], flip) for p, i, j, flip in moves]
    return np.stack([crop[:, ::-1] if flip else crop for crop, flip in crops])


@pytest.mark.parametrize("rows", [slice(None), slice(3, 9), slice(None, None, 2), slice(0, 0)])
def test_tensors_are_the_arrays_and_share_their_memory(rows):
    images, labels = IMAGES.copy()[rows], np.arange(23, dtype=np.int32)[rows]
    images.flags.writeable = False  # as of a file that is mapped
    split = Split(images, labels)
    for tensor, array in zip(split.tensors, (images, labels), strict=True):
        np.testing.assert_array_equal(tensor, array)
    np.testing.assert_array_equal(split.images, images)
    if len(images):
        split.images[0, 0, 0, 0] ^= 255
        assert split.tensors[0][0, 0, 0, 0] == split.images[0, 0, 0, 0] != images[0, 0, 0, 0]


def labels_of(batches):
    return [np.array(labels).tolist() for _, labels in batches]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 250])
def test_rows_by_batches_are_in_their_order_and_structure(batch_size):
    def function(images, labels):
        assert len(images) == len(labels) <= batch_size
        return {"b": tf.constant(images)[:, 0], "a": (labels + 1,)}

    result = in_batches(function, IMAGES, SPLIT.labels, batch_size=batch_size)
    assert list(result) == ["b", "a"] and isinstance(result["b"], np.ndarray)
    assert np.array_equal(result["b"], IMAGES[:, 0]) and np.array_equal(result["a"][0], SPLIT.labels + 1)


def test_every_crop_and_flip_is_exactly_pad_slice_and_flip():
    pad = 4
    down, right = np.meshgrid(np.arange(2 * pad + 1), np.arange(2 * pad + 1))
    plan = epoch_plan(2000, SIZE, batch_size=2000, seed=0, epoch=0, crop_padding=pad, flip=True)
    images = IMAGES[plan["rows"][0] % len(IMAGES)]
    crops = np.array(augment(tf.constant(images), step_of(plan, 0)))

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


def test_the_batches_are_those_of_the_positions_that_plans_used_to_hold():
    # Runs that began with such plans go on with the same batches.
    rng = np.random.default_rng((3, 1))
    rows = rng.permutation(23)[:20].reshape(4, 5)
    down, right = rng.integers(-4, 5, (4, 5)), rng.integers(-4, 5, (4, 5))
    columns = np.where((rng.random((4, 5)) < 0.5)[..., None], np.arange(SIZE)[::-1], np.arange(SIZE))
    positions = np.arange(SIZE) + down[..., None], columns + right[..., None]
    source_rows, source_columns = (SIZE - 1 - abs(SIZE - 1 - abs(p)) for p in positions)
    plan = epoch_plan(23, SIZE, **PLAN)
    np.testing.assert_array_equal(plan["rows"], rows)
    for step in range(4):
        images = IMAGES[rows[step]]
        expected = images[np.arange(5)[:, None, None], source_rows[step][:, :, None], source_columns[step][:, None]]
        np.testing.assert_array_equal(augment(tf.constant(images), step_of(plan, step)), expected)


def test_a_plan_takes_less_than_twenty_bytes_an_image():
    plan = epoch_plan(2000, 224, batch_size=20, seed=0, epoch=0, crop_padding=28, flip=True)
    assert sum(array.nbytes for array in plan.values()) < 20 * 2000


def test_without_padding_and_flip_images_stay_as_they_are():
    plan = epoch_plan(23, SIZE, batch_size=5, seed=0, epoch=0)
    for step in range(4):
        images = IMAGES[plan["rows"][step]]
        np.testing.assert_array_equal(augment(tf.constant(images), step_of(plan, step)), images)


def test_half_of_the_images_are_flipped():
    flipped = epoch_plan(10_000, SIZE, batch_size=10_000, seed=0, epoch=0, flip=True)["flipped"]
    assert abs(flipped.mean() - 0.5) < 0.025  # five standard deviations


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
    assert all((first[name] != second[name]).any() for name in ("rows", "down", "right", "flipped"))


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
    plan = step_of(epoch_plan(23, SIZE, **PLAN), 0)
    images, labels = next(iter(training_batches(SPLIT, SIZE, **PLAN)))
    np.testing.assert_array_equal(labels, plan["rows"])
    np.testing.assert_array_equal(images, planned(IMAGES[plan["rows"]], plan).astype("float32") / np.float32(127.5) - 1)


def examples(shuffle_seed=None, selected=None, augment=False):
    """A stream of `SPLIT`; augmented, an image is inverted."""
    rows = np.arange(23) if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(23)
    images = 255 - IMAGES if augment else IMAGES
    stored = tf.data.Dataset.from_tensor_slices((images[rows], rows.astype(np.int32)))
    return numbered(stored, selected).map(lambda place, example: example)


STREAM = StreamSplit(examples, 23)


def test_a_streamed_epoch_takes_every_example_at_most_once_in_full_batches():
    labels = labels_of(training_batches(STREAM, SIZE, **PLAN))
    assert [len(batch) for batch in labels] == [5, 5, 5, 5]
    assert len(set(sum(labels, []))) == 20


def test_a_streamed_epoch_has_its_own_order():
    orders = [labels_of(training_batches(STREAM, SIZE, **(PLAN | {"epoch": epoch}))) for epoch in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_streamed_training_images_are_the_augmented_ones_cropped_and_flipped_as_planned():
    plan = epoch_plan(23, SIZE, **PLAN)
    assert 0 < plan["flipped"].mean() < 1
    for step, (images, labels) in enumerate(training_batches(STREAM, SIZE, **PLAN)):
        assert images.shape == (5, SIZE, SIZE, 3)
        pixels = planned(255 - IMAGES[labels.numpy()], step_of(plan, step))
        np.testing.assert_array_equal(images, scale(pixels))


@pytest.mark.parametrize("first_step", [0, 2, 3])
def test_a_streamed_epoch_resumes_in_its_middle_with_identical_batches(first_step):
    whole = list(training_batches(STREAM, SIZE, **PLAN))
    rest = list(training_batches(STREAM, SIZE, first_step=first_step, **PLAN))
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[first_step:], strict=True):
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(images, expected_images)


@pytest.mark.parametrize("augmentation", ["none", "randaugment", "mixup"])
def test_a_split_on_disk_gives_the_batches_of_one_in_memory(augmentation):
    plan = PLAN | {"augmentation": augmentation, "num_classes": 23, "first_step": 1}
    held, stored = (list(training_batches(split, SIZE, **plan)) for split in (SPLIT, ON_DISK))
    assert len(held) == len(stored) == 3
    for batch, expected in zip(stored, held, strict=True):
        for value, of_memory in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(value, of_memory)


def test_under_jax_a_split_on_disk_gives_what_one_in_memory_does(monkeypatch):
    calls = (training_batches, PLAN), (evaluation_batches, {"batch_size": 5, "order_seed": 1})
    for make, like in calls:
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        held, stored = ([*make(split, SIZE, steps_per_call=3, **like)] for split in (SPLIT, ON_DISK))
        monkeypatch.undo()
        assert all(len(images) < 23 for images, *_ in stored)
        for of_disk, of_memory in zip(stored, held, strict=True):
            for step in range(len(of_disk[2]["rows"])):
                for a, b in zip(picked(*of_disk, step), picked(*of_memory, step), strict=True):
                    np.testing.assert_array_equal(a, b)


def picked(images, labels, plan, step):
    """What a training step makes of an item under JAX."""
    return gather(tf.constant(np.asarray(images)), tf.constant(np.asarray(labels)), step_of(plan, step))


def dealt(monkeypatch, make_batches, workers, replicas):
    """Returns for each worker the list of what its replicas get, in turn."""
    monkeypatch.setattr(distribution, "replicas", lambda: workers * replicas)

    def batches(make):
        return [list(make(worker, workers, replicas)) for worker in range(workers)]

    monkeypatch.setattr(distribution, "distributed_batches", batches)
    return make_batches()


@pytest.mark.parametrize("split", [SPLIT, ON_DISK, STREAM], ids=["in memory", "on disk", "stream"])
@pytest.mark.parametrize("workers, replicas", [(1, 4), (2, 2), (4, 1)])
def test_the_parts_of_all_workers_and_replicas_make_up_the_batches_of_one(split, workers, replicas, monkeypatch):
    plan = PLAN | {"batch_size": 8}
    whole = list(training_batches(split, SIZE, first_step=1, **plan))
    parts = dealt(monkeypatch, lambda: training_batches(split, SIZE, first_step=1, **plan), workers, replicas)
    assert len(whole) == 1
    for step, (images, labels) in enumerate(whole):
        mine = [worker[step * replicas + i] for worker in parts for i in range(replicas)]
        np.testing.assert_array_equal(np.concatenate([x for _, x in mine]), labels)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in mine]), images)


@pytest.mark.parametrize("split", [SPLIT, ON_DISK], ids=["in memory", "on disk"])
@pytest.mark.parametrize("workers, replicas", [(1, 4), (2, 2), (4, 1)])
def test_evaluation_gives_every_replica_as_many_examples_and_each_example_to_one(split, workers, replicas, monkeypatch):
    parts = dealt(monkeypatch, lambda: evaluation_batches(split, SIZE, batch_size=8), workers, replicas)
    assert {len(worker) for worker in parts} == {replicas * evaluation_steps(split, batch_size=8)}
    batches = [batch for worker in parts for batch in worker]
    assert {len(labels) for _, labels in batches} == {2}
    found = {int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)}
    assert found.pop(-1) is not None and sorted(found) == list(range(23))
    assert sum(int(label) >= 0 for _, labels in batches for label in labels) == 23
    np.testing.assert_array_equal([found[i] for i in range(23)], scale(IMAGES))


@pytest.mark.parametrize("split", [SPLIT, ON_DISK], ids=["in memory", "on disk"])
def test_a_split_is_evaluated_as_it_is_stored_or_in_the_order_of_a_seed(split):
    def read(seed):
        batches = evaluation_batches(split, SIZE, batch_size=10, order_seed=seed)
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    for seed in (None, 0):
        images, labels = read(seed)
        np.testing.assert_array_equal(images, np.asarray(scale(IMAGES))[labels])
        assert sorted(labels) == list(range(23)) and (list(labels) == list(range(23))) == (seed is None)
        np.testing.assert_array_equal(labels, read(seed)[1])


def test_scaling_maps_0_to_minus_1_and_255_to_1_exactly():
    np.testing.assert_array_equal(scale(np.array([0, 255], np.uint8)), np.array([-1, 1], np.float32))


def test_a_batch_larger_than_the_split_is_an_error():
    with pytest.raises(ValueError, match="a batch of 24 does not fit into 23 training examples"):
        training_batches(SPLIT, SIZE, **(PLAN | {"batch_size": 24}))
