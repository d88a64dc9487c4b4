import io
import os
import pathlib
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from cdc_keras.data.dataset import StreamSplit
from cdc_keras.data.folder import load_folder
from cdc_keras.data.image_file import read_image
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


def equal(a, b):
    """Whether two splits have the same images, labels and factors."""
    first, second = ({**split.factors, "images": split.images[:], "labels": split.labels} for split in (a, b))
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_images_on_disk_are_those_that_memory_would_hold(folder):
    held, stored = read(folder, validation_fraction=0.2), read(folder, validation_fraction=0.2, memory_limit=0)
    for part in ("train", "validation", "test"):
        a, b = getattr(held, part), getattr(stored, part)
        assert a.in_memory and not b.in_memory and equal(a, b)
        assert equal(a.take([1, 0]), b.take([1, 0])) and equal(a.sample(3, 2), b.sample(3, 2))
        assert b.take([1, 0]).in_memory


def test_with_random_crops_the_images_to_score_may_be_on_disk(folder):
    like = {"validation_fraction": 0.2, "crop_area": 0.5}
    held, stored = read(folder, **like), read(folder, **like, memory_limit=0)
    assert isinstance(stored.train, StreamSplit) and len(stored.train) == 16
    for part in ("validation", "test"):
        assert not getattr(stored, part).in_memory and equal(getattr(held, part), getattr(stored, part))


def test_images_are_decoded_once_for_all_cuts_and_again_if_a_file_changes(folder, monkeypatch):
    decoded = []

    def note(path, size):
        decoded.append(path)
        return read_image(path, size)

    monkeypatch.setattr("cdc_keras.data.folder.read_image", note)
    for seed in (0, 1):
        assert lengths(read(folder, validation_fraction=0.2, memory_limit=0, seed=seed)) == (16, 4, 6)
    assert len(decoded) == 26
    Image.new("RGB", (16, 16)).save(folder / "train" / "sky" / "image 00.png")
    assert (read(folder, memory_limit=0).train.images[:] == 0).all(axis=(1, 2, 3)).sum() == 1
    assert len(decoded) == 2 * 26


def test_damaged_images_are_named_by_every_command_though_they_are_decoded_by_one(folder, capsys):
    (folder / "train" / "sky" / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        assert lengths(read(folder, memory_limit=0)) == (20, 0, 6)
        assert f"image left out: {folder / 'train' / 'sky' / 'broken.png'} (no readable" in capsys.readouterr().err


def test_an_image_that_is_damaged_while_it_is_read_stops_the_command(folder, monkeypatch):
    def refuse(path, size):
        raise OSError("gone")

    monkeypatch.setattr("cdc_keras.data.folder.read_image", refuse)
    with pytest.raises(UserError, match=r"image 00.png cannot be read any more \(gone\); start again"):
        read(folder)


@pytest.mark.parametrize("limit", [0, 2**30], ids=["on disk", "in memory"])
def test_a_file_that_cannot_be_opened_now_is_not_taken_for_a_damaged_image(folder, monkeypatch, limit):
    """Else an image would be left out until the file changes, or a black one stand in its place."""
    opened, path = open, folder / "train" / "sky" / "image 03.png"

    def refuse(file, *rest, **like):
        if os.fspath(file) == os.fspath(path):
            raise OSError(5, "Input/output error", str(file))
        return opened(file, *rest, **like)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"image 03.png'; start again when every image"):
        patch.setattr("builtins.open", refuse)
        read(folder, memory_limit=limit)
    assert len(read(folder, memory_limit=limit).train) == 20


def test_of_a_few_images_of_a_large_set_only_these_are_held(folder):
    size = 16 * 16 * 3
    few = read(folder, train_limit=4, validation_fraction=0.2, memory_limit=14 * size)
    assert lengths(few) == (4, 4, 6) and few.train.in_memory
    fewer = read(folder, train_limit=4, validation_fraction=0.2, memory_limit=13 * size)
    assert not fewer.train.in_memory and len(fewer.train.images.array) == 14
    assert [read(folder, memory_limit=count * size).train.in_memory for count in (25, 26)] == [False, True]


def test_what_was_cut_short_is_not_taken_for_whole(folder, monkeypatch, cache):
    def stop(path, size):
        raise KeyboardInterrupt

    before = set((cache / "decoded").glob("*"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cdc_keras.data.folder.read_image", stop)
        read(folder, memory_limit=0)
    assert set((cache / "decoded").glob("*")) == before
    assert equal(read(folder, memory_limit=0).train, read(folder).train)


def test_a_disk_without_room_is_told_before_decoding(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="take 2e-05 GB decoded.* has 1e-07 GB free; make room there, or set CDC_KERAS"):
        read(folder, memory_limit=0)


def test_a_cache_that_is_a_file_is_told(folder, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_CACHE", str(folder / "train" / "sky" / "image 00.png"))
    with pytest.raises(UserError, match="images cannot be kept in .*image 00.png.*set CDC_KERAS_CACHE"):
        read(folder, memory_limit=0)


def test_a_stream_has_one_order_per_seed(folder):
    stream = read(folder, crop_area=1.0).train
    orders = [[i.mean() for i, _ in stream.examples(seed).as_numpy_iterator()] for seed in (None, 1, 1, 2)]
    assert orders[1] == orders[2] != orders[3]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])


def test_a_stream_decodes_only_what_is_selected(folder):
    stream = read(folder, crop_area=1.0).train
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


def test_an_empty_split_on_disk_is_one_without_images(folder):
    empty = read(folder, memory_limit=0).validation
    assert len(empty) == 0 and empty.images[:].shape == empty.images.shape == (0, 16, 16, 3)


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


def png_with(pixels, *chunks):
    """A PNG with more chunks, (name, content) each, before its pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data, place = file.getvalue(), file.getvalue().index(b"IDAT") - 4
    extra = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return data[:place] + b"".join(extra) + data[place:]


def jpeg_with_exif(pixels, entries, values=b""):
    """A JPEG whose EXIF block holds `entries`, (tag, type, count, four bytes) each."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + b"\0\0\0\0" + values
    data = file.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


GRADIENT = np.stack([*np.indices((16, 16)) * 16, np.full((16, 16), 60)], -1).astype(np.uint8)
QUARTER_TURN = (0x112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize("crop_area", [None, 0.5])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_an_image_with_a_broken_exif_block_is_read_as_it_lies(folder, kind, crop_area, capsys):
    path = folder / "train" / "sky" / f"a.{kind}"
    if kind == "png":
        path.write_bytes(png_with(GRADIENT, (b"eXIf", b"garbage!")))
    else:
        Image.fromarray(GRADIENT).save(path, lossless=True, exif=b"garbage!")
    assert np.array_equal(read_image(path, 16), GRADIENT)
    data = read(folder, crop_area=crop_area)
    assert len(data.train) == 21
    if crop_area:
        assert len(list(data.train.examples(0, augment=True))) == 21
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry, values",
    [
        ((0x100, 9, 1, struct.pack("<i", -5)), b""),  # a negative width
        ((0x11A, 5, 1, struct.pack("<I", 38)), struct.pack("<II", 72, 0)),  # a resolution over nought
    ],
)
def test_an_image_is_turned_whatever_else_its_exif_block_says(folder, entry, values):
    path = folder / "train" / "sky" / "a.jpg"
    path.write_bytes(jpeg_with_exif(GRADIENT, [QUARTER_TURN, entry], values))
    assert abs(read_image(path).astype(int) - np.rot90(GRADIENT, -1)).max() < 30
    assert len(read(folder).train) == 21


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_turned_as_pillow_turns_them(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(GRADIENT[:8]).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(read_image(tmp_path / "a.png"), ImageOps.exif_transpose(image))


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "EPS", "PPM"])
def test_a_file_of_another_format_than_its_name_says_is_refused_by_name(folder, kind, capsys):
    path = folder / "train" / "sky" / "a.jpg"
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(values if kind == "TIFF" else GRADIENT).save(path, kind)
    assert len(read(folder).train) == 20
    report = capsys.readouterr().err
    assert f"image left out: {path} (no readable JPEG, PNG, WEBP, BMP)" in report
    assert "1 of 27 images are left out" in report


def test_a_png_that_is_called_jpg_is_read(folder):
    Image.fromarray(GRADIENT).save(folder / "train" / "sky" / "a.jpg", "PNG")
    assert np.array_equal(read_image(folder / "train" / "sky" / "a.jpg", 16), GRADIENT)


@pytest.mark.parametrize("factor", [1.5, 3])  # Pillow warns of the one and refuses the other
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_oversized_bmp_is_said_to_be_too_large(folder, factor, capsys, monkeypatch):
    Image.new("RGB", (40, 30)).save(folder / "train" / "sky" / "large.bmp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(1200 / factor))
    assert len(read(folder).train) == 20
    assert f"{int(1200 / factor)}" in next(x for x in capsys.readouterr().err.splitlines() if "large.bmp" in x)


def test_a_png_is_said_to_be_too_large_before_it_is_inflated(folder, capsys, monkeypatch):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    picture = zlib.compress(bytes(2**20))
    chunks = [
        struct.pack(">I", len(x)) + k + x + struct.pack(">I", zlib.crc32(k + x))
        for k, x in ((b"IHDR", header), (b"IDAT", picture), (b"IEND", b""))
    ]
    (folder / "train" / "sky" / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    monkeypatch.setattr(zlib, "decompressobj", None)
    with pytest.raises(ValueError, match="20000 x 20000 pixels, but at most"):
        read_image(folder / "train" / "sky" / "large.png")


def test_a_flat_folder_may_have_a_category_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, 10)
    data = read(tmp_path)
    assert data.class_names == ("bus", "car", "train")
    assert len(data.train) + len(data.test) == 30


def test_stray_files_are_counted_by_their_endings(folder, capsys):
    for name in ("a.gif", "b.GIF", "c.tif", "d.avif", "README", "._e.png"):
        (folder / "train" / "sky" / name).write_bytes(b"x")
    read(folder)
    report = capsys.readouterr().err
    assert "6 files or folders are no images" in report
    assert "2 .gif, 1 hidden, 1 without an ending, 1 .tif, 1 .avif" in report


def test_images_that_lie_one_level_down_are_pointed_out(tmp_path):
    for name in ("n01", "n02"):
        fill(tmp_path / "train" / name / "images", 3)
    with pytest.raises(UserError, match="n01 holds no image .*but its folder images does: move"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["BACKGROUND_Google", "__MACOSX", "@eaDir"])
def test_a_folder_that_is_rarely_a_category_is_pointed_out(folder, name, capsys):
    fill(folder / "train" / name, 3)
    assert name in read(folder).class_names
    assert f"taken for a category: {name}; move it away" in capsys.readouterr().err


def test_what_macos_leaves_in_archives_is_to_be_moved_away(folder):
    (folder / "train" / "__MACOSX").mkdir()
    (folder / "train" / "__MACOSX" / "._a.png").write_bytes(b"x")
    with pytest.raises(UserError, match="__MACOSX holds no image .*: move it away if it is no category"):
        read(folder)


def test_a_folder_that_may_not_be_listed_is_named(folder, monkeypatch):
    # Not by its mode, which does not keep the superuser out.
    listed = pathlib.Path.iterdir

    def refuse(path):
        if path.name == "sky":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"sky cannot be listed \(Permission denied\)"):
        read(folder)


def test_a_category_whose_name_is_not_utf_8_is_named_and_a_file_may_be(folder):
    os.rename(folder / "train" / "sky" / "image 00.png", os.fsencode(folder / "train" / "sky") + b"/caf\xe9.png")
    assert len(read(folder, memory_limit=0).train) == 20
    os.mkdir(os.fsencode(folder / "train") + b"/caf\xe9")
    Image.new("RGB", (16, 16)).save(os.fsdecode(os.fsencode(folder / "train") + b"/caf\xe9/a.png"))
    with pytest.raises(UserError, match=r"caf\\udce9' is not UTF-8.*rename it"):
        read(folder)
