"""What lies beside the images of a folder: labels.csv and masks."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cdc_keras.data.folder import load_folder
from cdc_keras.errors import UserError

LIGHT, DARK = (250, 250, 250), (10, 10, 10)


def read(path, **changed):
    return load_folder(path, **({"image_size": 8, "validation_fraction": 0.0, "seed": 0} | changed))


@pytest.fixture
def folder(tmp_path):
    """Two classes in train and test. The left half of an image is light; the file's number is its brightness there."""
    lines = ["file,place,number"]
    for part, count in (("train", 4), ("test", 3)):
        for label in ("cat", "dog"):
            for folder in (tmp_path / part / label, tmp_path / "masks" / part / label):
                folder.mkdir(parents=True)
            for i in range(count):
                number = 200 + len(lines)
                pixels = np.zeros((12, 16, 3), np.uint8)
                pixels[:, :8] = number
                Image.fromarray(pixels).save(tmp_path / part / label / f"{part}-{label}-{i}.png")
                Image.fromarray(pixels[..., 0] // 128 * 255).save(
                    tmp_path / "masks" / part / label / f"{part}-{label}-{i}.png"
                )
                lines.append(f"{part}-{label}-{i},{'water' if i % 2 else 'land'},{number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def rewrite(folder, change):
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join(change(lines)) + "\n")


def test_columns_and_masks_follow_their_images_through_every_cut(folder, capfd):
    data = read(folder, validation_fraction=0.25, train_limit=4)
    for split in (data.train, data.validation, data.test):
        assert set(split.factors) == {"place", "number", "mask"}
        assert split.factors["mask"].shape == (len(split), 8, 8) and split.factors["mask"].dtype == bool
        assert split.images[:, 4, 0, 0].tolist() == [int(x) for x in split.factors["number"]]
        assert np.array_equal(split.factors["mask"], split.images[..., 0] > 100)
    assert [len(x) for x in (data.train, data.validation, data.test)] == [4, 2, 6]
    assert "no images" not in capfd.readouterr().err  # neither is a stray


@pytest.mark.parametrize("named", ["{}/{}/{}.png", "{2}.png", "{2}"])
def test_a_row_names_its_image_by_path_name_or_stem(folder, named):
    def renamed(lines):
        for line in lines[1:]:
            stem, _, rest = line.partition(",")
            part, label, _ = stem.split("-")
            yield f"{named.format(part, label, stem)},{rest}"

    rewrite(folder, lambda lines: [lines[0], *renamed(lines)])
    test = read(folder).test
    assert test.images[:, 4, 0, 0].tolist() == [int(x) for x in test.factors["number"]]


def test_without_a_train_folder_they_are_no_category_either(folder):
    for name in ("train", "masks/train"):
        shutil.rmtree(folder / name)
    for name in ("cat", "dog"):
        (folder / "test" / name).rename(folder / name)
        (folder / "masks/test" / name).rename(folder / "masks" / name)
    (folder / "test").rmdir()
    (folder / "masks/test").rmdir()
    data = read(folder)
    assert data.class_names == ("cat", "dog") and len(data.train) + len(data.test) == 6
    assert np.array_equal(data.test.factors["mask"], data.test.images[..., 0] > 100)


def test_a_folder_of_images_called_masks_is_a_category(folder):
    shutil.rmtree(folder / "masks")
    shutil.copytree(folder / "train/cat", folder / "train/masks")
    (folder / "labels.csv").unlink()
    assert read(folder).class_names == ("cat", "dog", "masks")


def test_rows_of_images_that_are_not_there_do_no_harm(folder):
    rewrite(folder, lambda lines: [*lines, "gone.png,land,7"])
    assert len(read(folder).test.factors["place"]) == 6


def test_masks_of_some_splits_are_enough(folder):
    shutil.rmtree(folder / "masks/train")
    data = read(folder)
    assert "mask" in data.test.factors and "mask" not in data.train.factors


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda lines: lines[:-1], "has no row for 1 of 14 images, such as .*test-dog-2.png; add them"),
        (lambda lines: [*lines, lines[-1]], "names test-dog-2 twice; keep one row for each image"),
        (lambda lines: [*lines, "test-dog-2.png,land,9"], "has two rows for .*test-dog-2.png; keep one"),
        (lambda lines: ["image,place,number", *lines[1:]], "needs a column file .* it has image, place, number"),
        (lambda lines: ["file,place,place", *lines[1:]], "needs a column file and different names"),
        (lambda lines: ["file,mask,number", *lines[1:]], "mask is what masks/ gives"),
        (lambda lines: [*lines, "x,land"], "row 16: expected 3 values, one for each column"),
        (lambda lines: [], "needs a column file .* it has none"),
        (lambda lines: [*lines, '"open,land,3'], "no table of comma-separated values in UTF-8: unexpected end"),
    ],
)
def test_a_bad_table_is_answered_with_one_sentence(folder, change, sentence):
    rewrite(folder, change)
    with pytest.raises(UserError, match=sentence) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_a_name_that_fits_two_images_is_refused(folder):
    (folder / "test/cat/test-cat-0.png").rename(folder / "test/cat/train-cat-0.png")
    (folder / "masks/test/cat/test-cat-0.png").rename(folder / "masks/test/cat/train-cat-0.png")
    with pytest.raises(UserError, match="train-cat-0 is the name of both .* give paths from"):
        read(folder)


def test_a_table_that_is_no_utf8_is_refused(folder):
    (folder / "labels.csv").write_bytes(b"file,place\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="no table of comma-separated values in UTF-8"):
        read(folder)


def test_bad_masks_are_answered_with_one_sentence(folder):
    mask = folder / "masks/test/cat/test-cat-1.png"
    content = mask.read_bytes()
    Image.new("L", (16, 11)).save(mask)
    for limit in (2**30, 0):  # in memory, on disk
        with pytest.raises(
            UserError, match="^the mask .*test-cat-1.png has 16 x 11 pixels and its image 16 x 12; make"
        ):
            read(folder, memory_limit=limit)
    mask.write_bytes(content[:40])
    with pytest.raises(UserError, match="the mask .*test-cat-1.png cannot be read: this PNG has no picture"):
        read(folder)
    mask.unlink()
    with pytest.raises(UserError, match="there is no mask .*test-cat-1.png, while other images have theirs"):
        read(folder)
