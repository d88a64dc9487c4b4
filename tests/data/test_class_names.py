"""The names of CIFAR's categories."""

import types

import numpy as np
import pytest

from cdc_keras.data.class_names import NAMES
from cdc_keras.data.load import load_dataset


def load(folder, name, classes, **arrays):
    images, labels = np.zeros((classes, 4, 4, 3), np.uint8), np.arange(classes)
    np.savez(folder / f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, **arrays)
    settings = {"image_size": None, "train_limit": None, "crop_area": None, "validation_fraction": 0.0, "seed": 0}
    return load_dataset(types.SimpleNamespace(dataset=name, data_dir=str(folder), **settings))


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_a_copy_without_names_has_the_official_ones(tmp_path, name, classes):
    names = load(tmp_path, name, classes).class_names
    assert names == NAMES[name] == tuple(sorted(NAMES[name]))  # the official order is the alphabet's
    assert len(set(names)) == classes


def test_names_that_are_there_and_other_numbers_of_classes_are_left_alone(tmp_path):
    letters = tuple("abcdefghij")
    assert load(tmp_path, "cifar10", 10, class_names=np.array(letters)).class_names == letters
    assert load(tmp_path, "cifar10", 3).class_names == ("0", "1", "2")
    assert load(tmp_path, "mine", 10).class_names == tuple("0123456789")
