import importlib.util
import io
import os
import pathlib
import time

import numpy as np
import pytest
from PIL import Image
from tiny_tfds import draw, prepare

from cdc_keras.data import tfds_source
from cdc_keras.data.dataset import Split, StreamSplit
from cdc_keras.data.pipeline import evaluation_batches
from cdc_keras.data.tfds_prepared import prepared
from cdc_keras.data.tfds_source import _as_dataset, load_tfds
from cdc_keras.errors import UserError

kept = pytest.mark.parametrize(
    "changed", [{}, {"memory_limit": 0}, {"crop_area": 0.5}], ids=["in memory", "on disk", "cropped"]
)


def read(name, folder, **changed):
    return load_tfds(name, data_dir=str(folder), **({"validation_fraction": 0.0, "seed": 0} | changed))


def rows(images):
    """The images as a set, because TFDS stores them in an order of its own."""
    return {np.asarray(image).tobytes() for image in images}


def lengths(data):
    return len(data.train), len(data.validation), len(data.test)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A data_dir with the sets that most tests read."""
    folder = tmp_path_factory.mktemp("tfds data")
    shape = (12, 12, 3)
    train, test = draw(60, shape), draw(9, shape, first=100)
    prepare(folder, "tiny_images", {"train": train, "test": test})
    # TFDS knows cifar10 itself, and so expects its size, its features and ten classes.
    prepare(folder, "cifar10", {"train": draw(60, (32, 32, 3)), "test": draw(9, (32, 32, 3))}, (32, 32, 3))
    prepare(folder, "three_splits", {"train": train, "validation": draw(6, shape, first=50), "test": test})
    prepare(folder, "secret_test", {"train": train, "validation": draw(6, shape), "test": (test[0], [-1] * 9)})
    prepare(folder, "train_only", {"train": train})
    sized = (16, None, 1)
    prepare(folder, "grey_sizes", {"train": draw(9, sized), "test": draw(3, sized)}, sized)
    return folder


@pytest.mark.parametrize("name, size", [("tiny_images", 12), ("cifar10", 32)])
def test_images_of_the_stored_size_come_bit_for_bit(stored, name, size):
    data = read(name, stored)
    assert rows(data.train.images) == rows(draw(60, (size, size, 3))[0])
    assert (data.train.images.dtype, data.train.labels.dtype, data.image_size) == (np.uint8, np.int32, size)
    assert data.class_names == tuple("abcdefghij")


def test_labels_belong_to_their_images(stored):
    images, labels = draw(60, (12, 12, 3))
    expected = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    train = read("tiny_images", stored).train
    assert [expected[image.tobytes()] for image in train.images] == train.labels.tolist()


@pytest.mark.parametrize(
    "changed", [{}, {"memory_limit": 0}, {"crop_area": 0.5}], ids=["in memory", "on disk", "cropped"]
)
def test_a_feature_that_is_asked_for_is_the_one_of_its_image(stored, changed):
    images, _ = draw(60, (12, 12, 3))
    expected = {image.tobytes(): str(i) for i, image in enumerate(images)}
    data = read("tiny_images", stored, features=("id",), validation_fraction=0.25, **changed)
    for split in (data.train, data.validation):
        read_images = (
            split.images if isinstance(split, Split) else [x for x, _ in split.examples(None).as_numpy_iterator()]
        )
        assert [expected[image.tobytes()] for image in read_images] == split.factors["id"].tolist()
    assert not read("tiny_images", stored).train.factors


@pytest.mark.parametrize("name", ["image", "label", "wing"])
def test_a_feature_that_is_none_is_refused(stored, name):
    with pytest.raises(UserError, match=f"no feature '{name}' that is a single value; it has id"):
        read("tiny_images", stored, features=(name,))


def test_validation_is_a_stratified_cut_of_training(stored):
    whole, data = read("tiny_images", stored), read("tiny_images", stored, validation_fraction=0.2)
    assert lengths(data) == (48, 12, 9)
    assert np.bincount(data.validation.labels).tolist() == [4, 4, 4]
    assert rows(data.train.images) | rows(data.validation.images) == rows(whole.train.images)


def test_the_same_seed_cuts_the_same_rows_and_another_seed_others(stored):
    first, again, other = (read("tiny_images", stored, validation_fraction=0.2, seed=s).validation for s in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert rows(first.images) != rows(other.images)


def test_validation_and_test_of_the_set_are_used_as_they_are(stored):
    data = read("three_splits", stored, validation_fraction=0.2)
    assert lengths(data) == (60, 6, 9)
    assert rows(data.validation.images) == rows(draw(6, (12, 12, 3), first=50)[0])


def test_validation_is_the_test_split_where_test_labels_are_secret(stored):
    data = read("secret_test", stored, validation_fraction=0.1)
    assert lengths(data) == (54, 6, 6)
    assert data.test.labels.min() == 0


def test_a_fifth_is_the_test_split_where_the_set_has_training_only(stored):
    data = read("train_only", stored, validation_fraction=0.25)
    assert lengths(data) == (36, 12, 12)
    assert len(rows(np.concatenate([data.train.images, data.validation.images, data.test.images]))) == 60


def test_a_train_limit_keeps_the_classes_in_proportion(stored):
    assert np.bincount(read("tiny_images", stored, train_limit=9).train.labels).tolist() == [3, 3, 3]


def test_greyscale_of_mixed_sizes_becomes_square_rgb(stored):
    images = read("grey_sizes", stored, image_size=8).train.images
    assert images.shape == (9, 8, 8, 3)
    assert np.array_equal(images[..., 0], images[..., 2])


def test_mixed_sizes_need_an_image_size(stored):
    with pytest.raises(UserError, match="give image_size"):
        read("grey_sizes", stored)


@pytest.mark.parametrize("limit", [None, 5])
def test_images_on_disk_are_those_that_memory_would_hold(stored, limit):
    held, on_disk = (read("tiny_images", stored, validation_fraction=0.2, memory_limit=x) for x in (2**30, 0))
    for a, b in ((held.train, on_disk.train), (held.validation, on_disk.validation), (held.test, on_disk.test)):
        assert a.in_memory and not b.in_memory
        assert np.array_equal(a.images, b.images[:]) and np.array_equal(a.labels, b.labels)
        first, second = a.sample(3, limit), b.sample(3, limit)
        assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
        assert len(first) == (limit or len(a))


@pytest.mark.parametrize("limit", [None, 5])
def test_of_a_stream_the_same_are_drawn_as_of_memory(stored, limit):
    held = read("tiny_images", stored).train
    streamed = read("tiny_images", stored, crop_area=1.0).train
    assert isinstance(streamed, StreamSplit)
    a, b = held.sample(3, limit), streamed.sample(3, limit)
    assert np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)
    assert len(a) == (limit or 60) and not np.array_equal(a.labels, held.labels[: len(a)])
    assert len(rows(a.images)) == len(a)
    assert len(streamed.sample(3, 0)) == 0


def test_only_the_rows_that_are_needed_are_stored(stored):
    data = read("tiny_images", stored, train_limit=9, validation_fraction=0.2, memory_limit=0)
    assert lengths(data) == (9, 12, 9) and len(data.train.images.array) == len(data.validation.images.array) == 21


def test_images_are_decoded_once_for_all_cuts(stored, monkeypatch):
    like = {"validation_fraction": 0.1, "memory_limit": 0}
    first = read("tiny_images", stored, **like)
    monkeypatch.setattr(tfds_source, "_decodable", None)
    again, other = read("tiny_images", stored, **like), read("tiny_images", stored, **like, seed=1)
    assert np.array_equal(first.train.images[:], again.train.images[:])
    assert rows(other.validation.images[:]) != rows(first.validation.images[:])


def test_a_shuffled_stream_holds_the_same_rows_in_one_order_per_seed(stored):
    stream = read("tiny_images", stored, validation_fraction=0.2, crop_area=1.0).train
    orders = [[image.tobytes() for image, _ in stream.examples(seed).as_numpy_iterator()] for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2] != orders[3]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])


def test_a_stream_decodes_only_what_is_selected(stored):
    stream = read("tiny_images", stored, crop_area=1.0).train
    whole, rest = (list(stream.examples(1, x).as_numpy_iterator()) for x in (None, lambda place: place >= 7))
    assert len(whole) == 60 and len(rest) == 53
    assert all(np.array_equal(a, b) for a, b in zip(rest[0], whole[7], strict=True))


def crops(split, seed, selected=None):
    return [image.tobytes() for image, _ in split.examples(seed, selected, augment=True).as_numpy_iterator()]


def test_random_crops_are_decided_by_the_seed_and_the_place_in_the_stream(stored):
    train = read("grey_sizes", stored, image_size=8, crop_area=0.2).train
    assert crops(train, 1) == crops(train, 1)
    assert set(crops(train, 1)).isdisjoint(crops(train, 2))
    assert crops(train, 1, lambda place: place >= 4) == crops(train, 1)[4:]


def test_with_random_crops_only_training_is_streamed_and_its_evaluation_is_as_before(stored):
    held = read("grey_sizes", stored, image_size=8, validation_fraction=0.34)
    data = read("grey_sizes", stored, image_size=8, validation_fraction=0.34, crop_area=0.2)
    images, labels = zip(*data.train.examples(None).as_numpy_iterator(), strict=True)
    assert np.array_equal(images, held.train.images) and np.array_equal(labels, held.train.labels)
    assert np.array_equal(data.validation.images, held.validation.images)
    assert np.array_equal(data.test.images, held.test.images)


def test_reading_changes_nothing_in_the_data_folder(stored):
    # Compared instead of made read-only, because permissions do not bind root.
    def listing():
        return {path: path.stat().st_mtime_ns for path in pathlib.Path(stored).rglob("*")}

    before = listing()
    read("tiny_images", stored, validation_fraction=0.2)
    with pytest.raises(UserError):
        read("mnist", stored)
    assert listing() == before


def test_a_set_that_is_not_prepared_is_answered_at_once_with_what_to_run(tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"tfds.builder\('cifar100', data_dir='.*absent'\).download_and_prepare"):
        read("cifar100", tmp_path / "absent")
    assert time.monotonic() - start < 3
    assert not (tmp_path / "absent").exists()


def test_imagenet_asks_for_its_two_archives(tmp_path):
    with pytest.raises(UserError, match="ILSVRC2012_img_train.tar .*downloads/manual"):
        read("imagenet2012", tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UserError, match="did you mean .*cifar100"):
        read("cifra100", tmp_path)


@pytest.mark.parametrize("name", ["huggingface:mnist", "/some/folder", "imagenet_resized/33x33"])
def test_a_name_that_tfds_cannot_open_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=name):
        read(name, tmp_path)


def test_without_tensorflow_the_answer_names_the_npz(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    with pytest.raises(UserError, match="needs tensorflow: .*cifar10.npz"):
        read("cifar10", tmp_path)


@pytest.mark.skipif("CDC_KERAS_DATA_DIR" not in os.environ, reason="CDC_KERAS_DATA_DIR names no prepared TFDS folder")
def test_the_real_cifar100_is_complete_and_balanced():
    data = read("cifar100", os.environ["CDC_KERAS_DATA_DIR"], validation_fraction=0.1)
    assert lengths(data) == (45_000, 5_000, 10_000)
    assert data.train.images.shape == (45_000, 32, 32, 3)
    for split, count in ((data.train, 450), (data.validation, 50), (data.test, 100)):
        assert np.bincount(split.labels).tolist() == [count] * 100


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A data_dir with a set of JPEGs, written as encoded bytes, of which three are cut in half."""
    folder = tmp_path_factory.mktemp("damaged")

    def encoded(count, halves):
        files = []
        for i, image in enumerate(draw(count, (40, 40, 3))[0]):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "JPEG")
            files.append(io.BytesIO(file.getvalue()[: len(file.getvalue()) // (2 if i in halves else 1)]))
        return files, [i % 3 for i in range(count)]

    prepare(folder, "halves", {"train": encoded(30, (4, 17)), "test": encoded(9, (2,))}, (None, None, 3))
    return folder


@pytest.mark.parametrize(
    "changed", [{}, {"memory_limit": 0}, {"crop_area": 0.5}], ids=["in memory", "on disk", "cropped"]
)
def test_images_that_cannot_be_decoded_are_named_by_split_and_row_and_left_out(damaged, changed, capsys):
    data = read("halves", damaged, image_size=16, validation_fraction=0.2, **changed)
    report = capsys.readouterr().err.splitlines()
    named = [line for line in report if line.startswith("image left out: halves, split ")]
    assert len(named) == 3 and sum("split train" in line for line in named) == 2
    assert "3 of 39 images are left out" in report
    assert len(data.train) + len(data.validation) == 28 and len(data.test) == 8
    for split in (data.train, data.validation, data.test)["crop_area" in changed :]:
        batches = [(np.asarray(x), np.asarray(y)) for x, y in evaluation_batches(split, data.image_size, batch_size=4)]
        assert sum(len(labels) for _, labels in batches) == len(split)
        assert all(image.std() > 1 / 127.5 for images, _ in batches for image in images)
    if isinstance(data.train, StreamSplit):
        assert len(list(data.train.examples(5, augment=True))) == len(data.train)


def test_the_row_of_a_damaged_image_is_its_place_on_disk(damaged, capsys):
    builder = prepared("halves", str(damaged))
    sizes = [len(x["image"]) for x in _as_dataset(builder, "test").as_numpy_iterator()]
    read("halves", damaged, image_size=16)
    assert f"split test, row {np.argmin(sizes)}:" in capsys.readouterr().err
