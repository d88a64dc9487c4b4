import types

import numpy as np
import pytest

from cdc_keras.config import RunConfig
from cdc_keras.data.arrays import load_npz
from cdc_keras.data.load import load_dataset
from cdc_keras.data.split import cut_training, stratified_cut
from cdc_keras.errors import UserError

LABELS = np.random.default_rng(0).integers(7, size=500)


def config(**changed):
    values = {"dataset": "shapes", "data_dir": None, "image_size": None, "validation_fraction": 0.1}
    values |= {"background_bias": 0.0, "difficulty": 0.0, "train_limit": None, "crop_area": None, "seed": 0}
    return types.SimpleNamespace(**(values | changed))


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(50, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(50) % 5
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_train=images[:40], y_train=labels[:40, None], x_test=images[40:], y_test=labels[40:])
    return path


@pytest.mark.parametrize("size", [0.0, 0.1, 0.37, 0, 1, 100, 493])
def test_a_cut_takes_every_row_once_and_exactly_as_many_as_asked(size):
    rest, cut = stratified_cut(LABELS, size, 0)
    assert np.array_equal(np.sort(np.concatenate([rest, cut])), np.arange(500))
    assert len(cut) == (size if isinstance(size, int) else round(size * 500))
    assert np.array_equal(cut, np.sort(cut)) and np.array_equal(rest, np.sort(rest))


def test_a_cut_keeps_the_proportions_of_the_classes():
    _, cut = stratified_cut(LABELS, 0.2, 0)
    assert abs(np.bincount(LABELS[cut]) - 0.2 * np.bincount(LABELS)).max() < 1


def test_a_cut_depends_on_the_seed_and_on_nothing_else():
    assert np.array_equal(stratified_cut(LABELS, 0.2, 1)[1], stratified_cut(LABELS, 0.2, 1)[1])
    assert not np.array_equal(stratified_cut(LABELS, 0.2, 1)[1], stratified_cut(LABELS, 0.2, 2)[1])


def test_a_cut_leaves_every_class_a_row():
    rest, _ = stratified_cut([0, 1, 1, 1, 1, 1], 4, 0)
    assert np.unique(np.take([0, 1, 1, 1, 1, 1], rest)).tolist() == [0, 1]
    with pytest.raises(UserError, match="keep one per class"):
        stratified_cut([0, 1, 1, 1, 1, 1], 5, 0)


def test_a_fraction_of_one_or_more_is_refused():
    with pytest.raises(UserError, match="below 1"):
        stratified_cut(LABELS, 1.0, 0)


def test_the_validation_rows_do_not_depend_on_the_train_limit():
    train, validation = cut_training(LABELS, validation_fraction=0.1, train_limit=None, seed=0)
    limited, same_validation = cut_training(LABELS, validation_fraction=0.1, train_limit=70, seed=0)
    assert np.array_equal(validation, same_validation)
    assert len(limited) == 70 and set(limited) <= set(train)


def test_a_train_limit_above_what_there_is_keeps_everything():
    train, _ = cut_training(LABELS, validation_fraction=0.0, train_limit=10_000, seed=0)
    assert len(train) == 500


def test_shapes_are_the_size_that_the_flags_say():
    data = load_dataset(config(train_limit=200, validation_fraction=0.25, image_size=16))
    assert (len(data.train), len(data.validation), data.image_size) == (200, 50, 16)


def test_an_npz_in_data_dir_is_read_bit_for_bit(npz):
    data = load_dataset(config(dataset="cifar10", data_dir=str(npz.parent)))
    with np.load(npz) as stored:
        assert np.array_equal(data.test.images, stored["x_test"])
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 10)
    assert (data.name, data.class_names, data.image_size) == ("cifar10", ("0", "1", "2", "3", "4"), 8)
    assert data.train.labels.dtype == np.int32


def test_an_npz_of_another_image_size_is_refused(npz):
    with pytest.raises(UserError, match="8 pixel"):
        load_npz(npz, image_size=32, validation_fraction=0.0, seed=0)


def test_an_npz_without_labels_is_refused_by_what_is_missing(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="y_train, x_test, y_test are missing"):
        load_npz(tmp_path / "a.npz", validation_fraction=0.0, seed=0)


def test_a_pickled_or_damaged_npz_is_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", x_train=np.array([{}], object))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("pickled", "damaged"):
        with pytest.raises(UserError, match=f"{name}.npz is not an .npz file"):
            load_npz(tmp_path / f"{name}.npz", validation_fraction=0.0, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"validation_fraction": 1.0}, {"train_limit": 0}, {"image_size": -3}, {"crop_area": 0.0}]
)
def test_numbers_out_of_bounds_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        RunConfig(**wrong)


def test_random_crops_of_images_that_come_at_their_size_are_refused(npz):
    for source in ({}, {"dataset": "cifar10", "data_dir": str(npz.parent)}):
        with pytest.raises(UserError, match="leave crop_area out"):
            load_dataset(config(crop_area=0.1, **source))


def test_a_folder_without_a_path_or_a_size_is_refused(tmp_path):
    for given in ({"data_dir": str(tmp_path)}, {"image_size": 32}):
        with pytest.raises(UserError, match="data_dir and image_size"):
            load_dataset(config(dataset="folder", **given))
