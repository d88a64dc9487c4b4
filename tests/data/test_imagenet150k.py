"""ImageNet-150K: which images it takes, and a small one from end to end."""

import types

import numpy as np
import pytest

from cdc_keras.data import imagenet150k
from cdc_keras.data.crop import fitted, squeezed
from cdc_keras.data.dataset import Split, StreamSplit
from cdc_keras.data.load import load_dataset
from cdc_keras.errors import UserError

CLASSES = 1000
NAMES = [f"class {i}" for i in range(CLASSES)]
SOURCE_IMAGE = np.random.default_rng(0).integers(256, size=(8, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels():
    """As many as the training split of ImageNet has, in its order: shuffled, 732 to 1300 and a few of each class."""
    counts = np.full(CLASSES, 1300)
    counts[:110] = np.linspace(732, 1290, 110)
    return np.random.default_rng(5).permutation(np.repeat(np.arange(CLASSES), counts))


def test_148_and_2_images_of_every_class_are_drawn_and_none_twice(labels):
    train, test = imagenet150k.draw(labels, NAMES)
    assert np.bincount(labels[train]).tolist() == [148] * CLASSES
    assert np.bincount(labels[test]).tolist() == [2] * CLASSES
    assert len(np.unique(np.concatenate([train, test]))) == 150_000
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()


def test_the_draw_is_the_documented_one(labels):
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(np.flatnonzero(labels == c))[:150] for c in range(CLASSES)])
    train, test = imagenet150k.draw(labels, NAMES)
    assert np.array_equal(train, np.sort(drawn[:, :148].ravel()))
    assert np.array_equal(test, np.sort(drawn[:, 148:].ravel()))


def test_a_class_with_too_few_images_is_named(labels):
    short = labels[(labels != 17) | (np.cumsum(labels == 17) <= 149)]
    with pytest.raises(UserError, match="class 17 has 149"):
        imagenet150k.draw(short, NAMES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A data_dir with an imagenet2012 of 4 images per class."""
    pytest.importorskip("tensorflow_datasets")
    from tiny_tfds import prepare

    folder = tmp_path_factory.mktemp("imagenet")
    train = [SOURCE_IMAGE] * 4 * CLASSES, [i % CLASSES for i in range(4 * CLASSES)]
    splits = {"train": train, "validation": ([SOURCE_IMAGE] * 3, [0] * 3)}
    prepare(folder, "imagenet2012", splits, (None, None, 3), "5.1.0", "file_name", NAMES)
    return folder


@pytest.fixture
def read(stored, monkeypatch):
    """`load` of a set with 3 + 1 images per class."""
    monkeypatch.setattr(imagenet150k, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(imagenet150k, "TEST_PER_CLASS", 1)
    values = {"dataset": "imagenet150k", "data_dir": str(stored), "image_size": None, "validation_fraction": 1 / 3}
    values |= {"background_bias": 0.0, "train_limit": None, "crop_area": None, "seed": 0}
    return lambda **changed: load_dataset(types.SimpleNamespace(**(values | changed)))


def test_it_is_held_in_memory_at_128_pixels_with_validation_cut_from_training(read):
    data = read()
    assert (data.name, data.image_size, len(data.class_names)) == ("imagenet150k", 128, CLASSES)
    assert isinstance(data.train, Split)
    for split, count in ((data.train, 2), (data.validation, 1), (data.test, 1)):
        assert np.bincount(split.labels).tolist() == [count] * CLASSES


def test_images_are_squeezed_whole(read):
    image = read(image_size=8, train_limit=CLASSES).train.images[0]
    assert np.array_equal(image, squeezed(SOURCE_IMAGE, 8)) and not np.array_equal(image, fitted(SOURCE_IMAGE, 8))


def test_random_crops_make_its_training_split_a_stream(read):
    data = read(image_size=16, crop_area=0.1)
    assert isinstance(data.train, StreamSplit) and isinstance(data.test, Split)


def test_a_class_that_is_too_small_in_the_prepared_set_is_refused(read, monkeypatch):
    monkeypatch.setattr(imagenet150k, "TRAIN_PER_CLASS", 4)
    with pytest.raises(UserError, match="but .* has 4"):
        read()


def test_where_imagenet_is_not_prepared_its_archives_are_asked_for(read, tmp_path):
    with pytest.raises(UserError, match="imagenet2012 is not prepared .*ILSVRC2012_img_train.tar"):
        read(data_dir=str(tmp_path))
