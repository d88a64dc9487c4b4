"""A zoo's files: where it is, and what is refused before it is parsed."""

import math
import shutil

import h5py
import keras
import numpy as np
import pytest
from records import flip_a_byte, no_network, replace_weights

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.release.verify import verify
from cdc_keras.runs.trained import load_disentangler
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.record import DISENTANGLER, PRESET, Record

SHAPE = (3, 3, 64, 64)  # of a kernel in every extractor


def released_disentangler():
    return load_disentangler("zoo:shapes_extractor")


@pytest.mark.parametrize("installed", [True, False])
def test_the_zoo_of_the_package_is_inside_or_beside_it(installed, tmp_path, monkeypatch):
    package = tmp_path / "cdc_keras"
    expected = package / "zoo_records" if installed else tmp_path / "zoo"
    expected.mkdir(parents=True)
    monkeypatch.setattr(zoo_files, "__file__", str(package / "zoo" / "files.py"))
    assert zoo_files.own() == expected


def test_the_variable_is_read_at_every_call(own, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path / "empty"))
    assert zoo.names() == []
    with pytest.raises(UserError, match="it has none yet"):
        zoo.info("shapes_gated")
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is a folder or an http, https or file URL, not .*nowhere"):
        zoo.names()


@pytest.mark.parametrize("file", [PRESET, "extractor.weights.h5", DISENTANGLER])
@pytest.mark.parametrize("at", [0, 1000, -1])
def test_one_changed_byte_is_refused_before_anything_is_parsed(file, at, own, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("parsed before its sha256 was checked")

    flip_a_byte(own / "shapes_extractor" / file, at)
    monkeypatch.setattr(h5py, "File", never)
    if file == PRESET:
        monkeypatch.setattr(Record, "from_json", never)
    with pytest.raises(UserError, match=f"{file} .*sha256"):
        released_disentangler() if file == DISENTANGLER else zoo.load("shapes_extractor")


def test_a_record_the_index_does_not_list_is_refused(own):
    (own / "index.json").write_text("{}")
    with pytest.raises(UserError, match="index.json does not list shapes_gated"):
        zoo.load("shapes_gated")
    assert len(verify()) == 2


@pytest.mark.parametrize("index", ['{"../x": "%s"}' % ("0" * 64), '{"x": "short"}', "[]", "{", "NaN"])  # noqa: UP031
def test_an_index_that_is_none_is_refused(index, own):
    (own / "index.json").write_text(index)
    with pytest.raises(UserError, match="index.json|a record's name"):
        zoo.names()


def test_a_preset_larger_than_any_is_not_read_on(own):
    (own / "shapes_extractor" / PRESET).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match="preset.json is larger than 1048576 bytes"):
        zoo.info("shapes_extractor")


def external_link(file, path):
    file[path] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file, path):
    file[path] = h5py.SoftLink("/elsewhere")


def external_dataset(file, path):
    file.create_dataset(path, SHAPE, "f4", external=[("/etc/passwd", 0, 4 * math.prod(SHAPE))])


def virtual_dataset(file, path):
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", SHAPE)
    file.create_virtual_dataset(path, layout)


@pytest.mark.parametrize("reach_out", [external_link, soft_link, external_dataset, virtual_dataset])
def test_keras_refuses_weights_outside_their_file(reach_out, own, tmp_path):
    """As many values are in the file as the network has, so that it is Keras that refuses it."""
    path = shutil.copyfile(own / "shapes_extractor" / "extractor.weights.h5", tmp_path / "evil.weights.h5")
    with h5py.File(path, "a") as file:
        arrays = []
        file.visititems(lambda name, item: arrays.append(name) if getattr(item, "shape", None) == SHAPE else None)
        values = file[arrays[0]][:]
        del file[arrays[0]]
        reach_out(file, arrays[0])
        if reach_out in (external_link, soft_link):  # no arrays themselves
            file["elsewhere"] = values
    assert zoo_files.count_values(path) == zoo.info("shapes_extractor").parameters
    replace_weights(own / "shapes_extractor", path)
    with pytest.raises(UserError, match="extractor.weights.h5 cannot be loaded into this model") as refused:
        zoo.load("shapes_extractor")
    assert "ot allowed" in str(refused.value.__cause__)


@pytest.mark.parametrize("values", [-1, 1])
def test_a_missing_or_additional_value_is_refused(values, own, tmp_path, monkeypatch):
    path = shutil.copyfile(own / "shapes_extractor" / "extractor.weights.h5", tmp_path / "other.weights.h5")
    with h5py.File(path, "a") as file:
        if values > 0:
            file["more"] = np.zeros(1)
        else:
            scalars = []
            file.visititems(lambda name, item: scalars.append(name) if isinstance(item, h5py.Dataset) else None)
            del file[scalars[0]]
    replace_weights(own / "shapes_extractor", path)
    monkeypatch.setattr(keras.Model, "load_weights", no_network)
    with pytest.raises(UserError, match="extractor.weights.h5 has .* values where its network has"):
        zoo.load("shapes_extractor")


def test_values_are_counted_once_in_a_circle_of_links(tmp_path):
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file.create_group("a")["b"] = file["/"]
        file["a/values"] = np.zeros((2, 3))
    assert zoo_files.count_values(tmp_path / "circle.h5") == 6


@pytest.mark.parametrize(
    "place", ["http://[::1", "https://", "ftp://host/zoo", "~nosuch/x", "a" * 5000, "http:zoo", "http://[nonsense]/"]
)
def test_a_place_that_is_none_is_one_sentence(place, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", place)
    said = "CDC_KERAS_ZOO is a folder or an http, https or file URL, not|home folder ~nosuch is not known"
    with pytest.raises(UserError, match=said):
        zoo.names()


@pytest.mark.parametrize("name", ["a" * 5000, "~nosuch/x", "a/" * 3000, "../up", ""])
def test_a_name_that_is_none_is_one_sentence(name, own):
    with pytest.raises(UserError, match="there is no record|is no folder of a record|home folder ~nosuch is not known"):
        zoo.load(name)


def test_a_file_for_audits_alone_is_named_with_its_place(own):
    (own / "shapes_extractor" / DISENTANGLER).unlink()
    with pytest.raises(UserError, match="disentangler.weights.h5 is missing; audits and scores need it"):
        released_disentangler()
