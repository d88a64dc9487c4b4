import os

import numpy as np
import pytest
from PIL import Image

from cdc_keras.data.dataset import Split, StreamSplit
from cdc_keras.data.folder import load_folder, read_image
from cdc_keras.errors import UserError


def fill(folder, count, *, colour=(200, 30, 30), size=(20, 16)):
    """`count` PNG images in `folder`, each of its own brightness."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, tuple(max(0, c - i) for c in colour)).save(folder / f"image {i:02d}.png")


def read(path, **changed):
    return load_folder(path, **({"image_size": 16, "validation_fraction": 0.0, "seed": 0} | changed))


def lengths(data):
    return len(data.train), len(data.validation), len(data.test)


@pytest.fixture
def folder(tmp_path):
    """train and val of two classes, under a path with spaces."""
    root = tmp_path / "my images"
    for part, count in (("train", 10), ("val", 3)):
        fill(root / part / "red apple", count)
        fill(root / part / "sky", count, colour=(20, 60, 220))
    return root


def test_val_beside_train_is_the_test_split_and_validation_is_cut_from_training(folder):
    data = read(folder, validation_fraction=0.2)
    assert lengths(data) == (16, 4, 6)
    assert data.class_names == ("red apple", "sky")
    assert np.bincount(data.validation.labels).tolist() == [2, 2]


def test_labels_follow_the_class_folders(folder):
    test = read(folder).test
    assert np.array_equal(test.labels, test.images[..., 2].mean((1, 2)) > test.images[..., 0].mean((1, 2)))


def test_with_val_and_test_each_is_what_it_says(folder):
    fill(folder / "test" / "sky", 5)
    assert lengths(read(folder, validation_fraction=0.2)) == (20, 6, 5)


def test_without_a_train_folder_a_fifth_of_every_class_is_the_test_split(folder):
    data = read(folder / "train", validation_fraction=0.25)
    assert lengths(data) == (12, 4, 4)
    assert np.bincount(data.test.labels).tolist() == [2, 2]


def test_the_test_split_is_the_same_for_every_seed(folder):
    first, other = (read(folder / "train", validation_fraction=0.25, seed=seed) for seed in (0, 1))
    assert np.array_equal(first.test.images, other.test.images)
    assert not np.array_equal(first.validation.images, other.validation.images)


def test_the_splits_share_no_image(folder):
    data = read(folder / "train", validation_fraction=0.25)
    images = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 20


def test_a_train_limit_keeps_the_classes_in_proportion(folder):
    assert np.bincount(read(folder, train_limit=6).train.labels).tolist() == [3, 3]


def test_a_stream_gives_the_images_that_memory_would_hold(folder):
    held, streamed = read(folder, validation_fraction=0.2), read(folder, validation_fraction=0.2, memory_limit=0)
    assert isinstance(held.train, Split) and isinstance(streamed.train, StreamSplit)
    images, labels = zip(*streamed.train.examples(None).as_numpy_iterator(), strict=True)
    assert np.array_equal(images, held.train.images)
    assert np.array_equal(labels, held.train.labels)


def test_a_stream_has_one_order_per_seed(folder):
    stream = read(folder, memory_limit=0).train
    orders = [[i.mean() for i, _ in stream.examples(seed).as_numpy_iterator()] for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2] != orders[3]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])


def test_a_stream_decodes_only_what_is_selected(folder):
    stream = read(folder, memory_limit=0).train
    whole, rest = (
        [i.mean() for i, _ in stream.examples(1, selected).as_numpy_iterator()]
        for selected in (None, lambda place: place >= 7)
    )
    assert rest == whole[7:] and len(rest) == 13


def crops(split, seed, selected=None):
    return [image.tobytes() for image, _ in split.examples(seed, selected, augment=True).as_numpy_iterator()]


def test_random_crops_are_decided_by_the_seed_and_the_place_in_the_stream(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(120, 160, 3), dtype=np.uint8)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(10):  # the same image throughout, so that only the crop can differ
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    train = read(tmp_path, crop_area=0.1).train
    assert crops(train, 1) == crops(train, 1)
    assert len(set(crops(train, 1)) | set(crops(train, 2))) == 2 * len(train)
    assert crops(train, 1, lambda place: place % 3 == 1) == crops(train, 1)[1::3]


def test_with_random_crops_only_training_is_streamed_and_its_evaluation_is_as_before(folder):
    held, data = read(folder, validation_fraction=0.2), read(folder, validation_fraction=0.2, crop_area=0.2)
    assert isinstance(data.train, StreamSplit)
    images, labels = zip(*data.train.examples(None).as_numpy_iterator(), strict=True)
    assert np.array_equal(images, held.train.images) and np.array_equal(labels, held.train.labels)
    assert np.array_equal(data.validation.images, held.validation.images)
    assert np.array_equal(data.test.images, held.test.images)


def test_an_empty_stream_can_be_read(folder):
    assert list(read(folder, memory_limit=0).validation.examples(0)) == []


def test_a_corrupt_image_is_named_and_left_out(folder, capsys):
    whole = (folder / "train" / "sky" / "image 00.png").read_bytes()
    (folder / "train" / "sky" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "sky" / "text.jpg").write_text("not found")
    assert lengths(read(folder)) == (20, 0, 6)
    report = capsys.readouterr().err
    assert str(folder / "train" / "sky" / "broken.png") in report
    assert str(folder / "train" / "sky" / "text.jpg") in report
    assert "2 of 28 images are left out" in report


def test_a_truncated_jpeg_is_found_before_training(folder, capsys):
    pixels = np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype=np.uint8)
    path = folder / "train" / "sky" / "half.jpg"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert len(read(folder, memory_limit=0).train) == 20
    assert str(path) in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_that_claims_a_huge_image_counts_as_corrupt(folder, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (40, 30)).save(folder / "train" / "sky" / "large.png")
    assert len(read(folder).train) == 20
    assert "large.png" in capsys.readouterr().err


def test_stray_files_are_counted_and_named(folder, capsys):
    for stray in ("train/.DS_Store", "train/sky/.DS_Store", "train/sky/notes.txt", "classes.txt"):
        (folder / stray).write_text("x")
    assert len(read(folder).train) == 20
    report = capsys.readouterr().err
    assert report.startswith("4 files or folders are no images") and "classes.txt" in report


def test_a_linked_image_file_is_read(folder, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "elsewhere.png")
    os.symlink(tmp_path / "elsewhere.png", folder / "train" / "sky" / "link.png")
    assert len(read(folder).train) == 21


def test_an_empty_class_is_refused(folder):
    (folder / "train" / "ghost").mkdir()
    with pytest.raises(UserError, match="ghost holds no image"):
        read(folder)


def test_a_class_of_corrupt_images_only_is_refused(folder):
    (folder / "train" / "ghost").mkdir()
    (folder / "train" / "ghost" / "a.png").write_text("x")
    with pytest.raises(UserError, match="ghost has none"):
        read(folder)


def test_a_single_class_is_refused(tmp_path):
    fill(tmp_path / "only", 3)
    with pytest.raises(UserError, match="at least 2 class folder"):
        read(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        read(tmp_path / "absent")


def test_a_held_out_class_that_is_not_trained_on_is_refused(folder):
    fill(folder / "val" / "unseen", 1)
    with pytest.raises(UserError, match="unseen is a class that is not trained on"):
        read(folder)


def test_val_and_validation_together_are_refused(folder):
    fill(folder / "validation" / "sky", 1)
    with pytest.raises(UserError, match="keep one"):
        read(folder)


def test_an_image_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 16), pixels)


def test_the_shorter_side_is_resized_and_the_centre_cropped(tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 200  # exactly the centre square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 16)
    assert image.shape == (16, 16, 3) and (image[:, 1:-1] == 200).all()


@pytest.mark.parametrize("mode, colour", [("L", 90), ("1", 1), ("P", 3), ("CMYK", (0, 90, 10, 5)), ("I;16", 90 << 8)])
def test_every_mode_becomes_rgb(tmp_path, mode, colour):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (20, 20), colour).save(path)
    image = read_image(path, 16)
    assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
    if mode in ("L", "I;16"):
        assert (image == 90).all()


def test_transparent_pixels_show_mid_grey(tmp_path):
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 16) == 128).all()


def test_the_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: upside down.
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", 16), pixels[::-1])
