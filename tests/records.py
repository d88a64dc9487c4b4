"""A small zoo made of two short runs, to read, to serve and to break; for the tests of zoo and release."""

import dataclasses
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
from shared import made_once
from tiny_runs import CLASSIFIER, EXTRACTOR

from cdc_keras.audit import examination
from cdc_keras.audit.audit import audit
from cdc_keras.release.add import add
from cdc_keras.release.card import card
from cdc_keras.runs.evaluation import evaluate
from cdc_keras.runs.training import train
from cdc_keras.visualize.figures import curves
from cdc_keras.weights import sha256
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.record import DISENTANGLER, PRESET, Record

IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")


def untrained_probe(train, labels, scored, *, num_classes, **options):
    """Takes no time, and is as often right in every audit."""
    return np.arange(len(scored)) % num_classes


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch):
    monkeypatch.setattr(examination, "probe", untrained_probe)


def _make_runs(folder):
    gated = dataclasses.replace(CLASSIFIER, extractor=str(folder / "extractor"))
    for name, config in (("extractor", EXTRACTOR), ("gated", gated)):
        run = train(config, folder / name, pictures=False)
        curves(run.rows(), run.pictures / "curves.png")
        evaluate(run.path, split="validation")  # draws the other pictures
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "probe", untrained_probe)
        audit(folder / "extractor", limit=40)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of two finished, scored runs, the extractor audited; only read."""
    return made_once(tmp_path_factory, "runs_of_records", _make_runs)


@pytest.fixture(scope="session")
def released(runs, tmp_path_factory):
    """A zoo of an extractor and of the classifier it gates; only read."""

    def make(folder):
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CDC_KERAS_ZOO", str(folder))
            add(runs / "extractor", "shapes_extractor", paper="78.2")
            add(runs / "gated", "shapes_gated")

    return made_once(tmp_path_factory, "released", make)


@pytest.fixture
def own(released, tmp_path, monkeypatch):
    """A copy of the zoo, to break."""
    folder = shutil.copytree(released, tmp_path / "zoo")
    monkeypatch.setenv("CDC_KERAS_ZOO", str(folder))
    return folder


@pytest.fixture
def served(own, tmp_path, monkeypatch):
    """The copy of the zoo behind a local HTTP server, whose `asked` are the paths it was asked for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(own))

        def log_message(self, *args):
            server.asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.folder, server.cache = [], own, tmp_path / "cache"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CDC_KERAS_ZOO", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("CDC_KERAS_CACHE", str(server.cache))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def audited(runs, released, tmp_path_factory):
    """(zoo, run): the zoo, and the extractor's run audited beside a rival and with a judge out of it."""
    folder = tmp_path_factory.mktemp("audited")
    place, run = shutil.copytree(released, folder / "zoo"), shutil.copytree(runs / "extractor", folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDC_KERAS_ZOO", str(place))
        patch.setattr(examination, "probe", untrained_probe)
        audit(run, rivals={"twin": "zoo:shapes_extractor"}, classifier="zoo:shapes_gated", limit=40)
        add(run, "shapes_audited")
    return place, run


def flip_a_byte(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change(folder, relist=True, **values):
    """Changes keys of a record's preset.json, and has the index list it if `relist`."""
    preset = json.loads((folder / PRESET).read_text())
    for key, value in values.items():
        preset[key] = value
    (folder / PRESET).write_text(json.dumps(preset))
    if relist:
        index = json.loads((folder.parent / "index.json").read_text())
        (folder.parent / "index.json").write_text(json.dumps(index | {folder.name: sha256(folder / PRESET)}))


def rewrite(folder, **values):
    """Changes keys of a record's preset.json, its card and the index accordingly."""
    change(folder, **values)
    preset = json.loads((folder / PRESET).read_text())
    (folder / "README.md").write_text(card(Record.from_json(json.dumps(preset), PRESET)))
    change(folder, files=preset["files"] | {"README.md": dataclasses.asdict(zoo_files.file_of(folder / "README.md"))})


def replace_weights(folder, path, file="extractor.weights.h5"):
    """Puts another weights' file into a record that states it as its own."""
    weights = folder / file
    shutil.move(path, weights)
    expected = dataclasses.asdict(zoo_files.file_of(weights))
    if file == DISENTANGLER:
        change(folder, files=json.loads((folder / PRESET).read_text())["files"] | {file: expected})
    else:
        change(folder, weights={"file": weights.name, **expected})


def no_network(*args, **kwargs):
    raise OSError("no network in this test")


def outputs(network):
    return np.asarray(network(IMAGES, training=False))
