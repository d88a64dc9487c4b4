"""Released networks: what they give, by name and by path, and what is refused before weights are assigned."""

import dataclasses
import json
import resource
import shutil
import socket

import h5py
import keras
import numpy as np
import pytest
from records import change, no_network, outputs, replace_weights
from tiny_runs import CLASSIFIER

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.release.verify import verify
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load, load_disentangler, load_trainer
from cdc_keras.runs.training import train
from cdc_keras.weights import sha256
from cdc_keras.zoo.record import DISENTANGLER, PRESET


def released_disentangler():
    return load_disentangler("zoo:shapes_extractor")


@pytest.mark.slow
def test_a_released_extractor_is_frozen_and_gives_what_its_run_gives(own, runs):
    network = zoo.load("shapes_extractor")
    np.testing.assert_array_equal(outputs(network), outputs(load(runs / "extractor")))
    assert isinstance(network, keras.Model) and network.name == "shapes_extractor"
    assert not network.trainable and network.trainable_weights == []


def test_a_released_gated_classifier_contains_its_extractor(own, runs):
    network = zoo.load("shapes_gated")
    np.testing.assert_array_equal(outputs(network), outputs(load_trainer(RunFolder(runs / "gated")).network))
    inside = network.get_layer("extractor").network
    np.testing.assert_array_equal(outputs(inside), outputs(zoo.load("shapes_extractor")))
    assert network.trainable_weights == []


def test_the_zoo_of_the_package_is_loaded_without_network(monkeypatch):
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in zoo.names():
        assert zoo.load(name).name == name


def test_loading_from_a_folder_needs_no_network(own, monkeypatch):
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    zoo.load("shapes_gated")


def test_an_unknown_name_is_refused_with_the_nearest(own):
    with pytest.raises(UserError, match="did you mean 'shapes_gated'. There are shapes_extractor, shapes_gated"):
        zoo.load("shape_gatd")


def test_a_record_outside_a_zoo_is_loaded_by_path(released, tmp_path, monkeypatch):
    folder = shutil.copytree(released / "shapes_extractor", tmp_path / "mine")
    assert zoo.load(folder).name == zoo.load(f"{folder}/").name == "shapes_extractor"
    monkeypatch.chdir(tmp_path)
    assert zoo.info("mine").name == "shapes_extractor"


def test_a_gated_record_outside_a_zoo_finds_its_extractor(own, tmp_path):
    folder = shutil.copytree(own / "shapes_gated", tmp_path / "alone" / "mine")
    assert zoo.info(folder).extractor.name == "shapes_extractor"
    np.testing.assert_array_equal(outputs(zoo.load(folder)), outputs(zoo.load("shapes_gated")))


def test_a_gated_record_does_not_take_another_extractor(own):
    change(own / "shapes_gated", extractor={"name": "shapes_extractor", "sha256": "0" * 64})
    with pytest.raises(UserError, match="shapes_extractor of the zoo .* is not the extractor that was gated with"):
        zoo.load("shapes_gated")


def test_a_record_under_another_name_is_refused(own):
    (own / "shapes_gated").rename(own / "better")
    (own / "index.json").write_text(json.dumps({"better": sha256(own / "better" / PRESET)}))
    with pytest.raises(UserError, match="is the record of shapes_gated, not of better"):
        zoo.load("better")


def test_another_fingerprint_is_refused_before_weights_are_assigned(own, monkeypatch):
    change(own / "shapes_extractor", fingerprint="0" * 64)
    monkeypatch.setattr(keras.Model, "load_weights", no_network)
    with pytest.raises(UserError, match="extractor.weights.h5 is of a network with fingerprint 0000"):
        zoo.load("shapes_extractor")


def test_weights_of_another_network_are_refused(own, tmp_path):
    network = zoo.load("shapes_extractor")
    fewer = keras.Model(network.inputs[0], network.layers[4].output)
    for i, other in enumerate((fewer, zoo.load("shapes_gated"))):
        other.save_weights(tmp_path / f"{i}.weights.h5")
        replace_weights(own / "shapes_extractor", tmp_path / f"{i}.weights.h5")
        with pytest.raises(UserError, match="extractor.weights.h5 has .* values where its network has"):
            zoo.load("shapes_extractor")


def test_the_extraction_network_of_a_record_is_its_runs(own, runs):
    trained, released = load_trainer(RunFolder(runs / "extractor")), released_disentangler()
    for ours, theirs in zip(released.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with h5py.File(own / "shapes_extractor" / DISENTANGLER) as file:
        assert "optimizer" not in file


def test_an_extractor_is_loaded_without_its_extraction_network(own):
    (own / "shapes_extractor" / DISENTANGLER).unlink()
    zoo.load("shapes_extractor")
    zoo.load("shapes_gated")
    with pytest.raises(UserError, match="disentangler.weights.h5 is missing"):
        released_disentangler()


def test_an_extraction_network_with_another_encoder_is_refused(own, tmp_path):
    model = released_disentangler()
    kernel = model.encoder.trainable_variables[0]
    kernel.assign(kernel * np.float32(1 + 1e-6))
    model.optimizer = None
    model.save_weights(tmp_path / "other.weights.h5")
    replace_weights(own / "shapes_extractor", tmp_path / "other.weights.h5", DISENTANGLER)
    with pytest.raises(UserError, match="the encoder in .*disentangler.weights.h5 is not the extractor"):
        released_disentangler()
    (problem,) = verify(["shapes_extractor"])
    assert "is not the extractor in extractor.weights.h5" in problem


def test_an_extraction_network_of_other_size_or_unlisted_is_refused(own, tmp_path):
    folder = own / "shapes_extractor"
    shutil.copyfile(folder / "extractor.weights.h5", tmp_path / "other.weights.h5")
    replace_weights(folder, tmp_path / "other.weights.h5", DISENTANGLER)
    with pytest.raises(UserError, match="disentangler.weights.h5 has .* values where its network has"):
        released_disentangler()
    files = json.loads((folder / PRESET).read_text())["files"]
    del files[DISENTANGLER]
    change(folder, files=files)
    assert "preset.json does not list disentangler.weights.h5" in "".join(verify(["shapes_extractor"]))
    with pytest.raises(UserError, match="does not list disentangler.weights.h5"):
        released_disentangler()


@pytest.mark.slow
def test_records_gate_and_teach_a_new_run(own, tmp_path):
    records = {"extractor": "zoo:shapes_extractor", "teacher": "zoo:shapes_gated"}
    run = train(dataclasses.replace(CLASSIFIER, network="vgg13_slim", **records), tmp_path / "student", pictures=False)
    known, released = run.notes(), zoo.load("shapes_extractor").get_weights()
    assert known["extractor_sha256"] == zoo.info("shapes_extractor").weights.sha256
    assert known["teacher"]["sha256"] == zoo.info("shapes_gated").weights.sha256
    shutil.rmtree(own)  # the run holds what it needs of them
    inside = load_trainer(run).network.get_layer("extractor").network.get_weights()
    for a, b in zip(inside, released, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (
            {"extractor": "zoo:shapes_gated"},
            "is a record of kind classifier; give one of kind extractor",
        ),
        (
            {"teacher": "zoo:shapes_extractor"},
            "zoo:shapes_extractor is a record of kind extractor; give",
        ),
        ({"extractor": "zoo:shape_extractor"}, "did you mean 'shapes_extractor'"),
    ],
)
def test_a_record_of_the_other_kind_is_refused_before_training(own, tmp_path, records, sentence):
    with pytest.raises(UserError, match=sentence):
        train(dataclasses.replace(CLASSIFIER, **records), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("shapes_gated", {"network": "vgg16_w8192"}),
        ("shapes_extractor", {"context_channels": 20_000_000}),
    ],
)
def test_a_network_beyond_its_file_takes_no_memory(name, values, own):
    config = json.loads((own / name / PRESET).read_text())["config"]
    change(own / name, config=config | values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="is of a network with fingerprint"):
        zoo.load(name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; the weights would be gigabytes


def test_an_extraction_network_beyond_its_file_takes_no_memory(own):
    config = json.loads((own / "shapes_extractor" / PRESET).read_text())["config"]
    change(own / "shapes_extractor", config=config | {"discriminator_width": 100_000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="disentangler.weights.h5 has .* values where its network has"):
        released_disentangler()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
