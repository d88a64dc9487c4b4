"""Released models: made from runs, checked before they are read, loaded from a folder or a URL."""

import dataclasses
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading

import h5py
import keras
import numpy as np
import pytest
from commands import refusal, run_command

from cdc_keras import zoo
from cdc_keras.audit import examination
from cdc_keras.audit.audit import audit
from cdc_keras.audit.probes import probe
from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.release.card import card
from cdc_keras.release.verify import evaluate_record, verify
from cdc_keras.runs.evaluation import evaluate, load_run
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load, load_disentangler
from cdc_keras.runs.training import train
from cdc_keras.weights import sha256
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.findings import READERS, Audit, Reading, described
from cdc_keras.zoo.record import DISENTANGLER, PRESET, Metric, Record, wrong_scores

EXTRACTOR = RunConfig(train_limit=64, batch_size=16, epochs=1, validation_fraction=0.3)
GATED = dataclasses.replace(EXTRACTOR, task="classifier", network="resnet8", warmup_epochs=0.1)
AUDIT = Audit(
    seed=0,
    limit=100,
    rivals={},
    classifier=None,
    probe_images=40,
    scored_images=50,
    erased={"erased": 0.1},
    readings=(
        Reading("category", "context", "conv", 0.41, 0.4, 0.42, 0.1),
        Reading("category", "context", "discriminator", 0.14, 0.12, 0.15, 0.1),
    ),
)
METRIC = dataclasses.asdict(Metric("top1", "test", 0.5, 0.001, 0.5, None, 1, (0,)))
IMAGES = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")


def untrained_probe(train, labels, scored, *, num_classes, **options):
    """Takes no time, and is as often right in every audit."""
    return np.arange(len(scored)) % num_classes


@pytest.fixture(autouse=True)
def quick_probes(monkeypatch):
    monkeypatch.setattr(examination, "probe", untrained_probe)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(EXTRACTOR, folder / "extractor")
    train(dataclasses.replace(GATED, extractor=str(folder / "extractor")), folder / "gated")
    for run in ("extractor", "gated"):
        evaluate(folder / run, split="validation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "probe", untrained_probe)
        audit(folder / "extractor", limit=40)
    return folder


@pytest.fixture(scope="module")
def released(runs, tmp_path_factory):
    """A zoo of an extractor and of the classifier it gates; only read."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDC_KERAS_ZOO", str(folder))
        zoo.add(runs / "extractor", "shapes_extractor", paper="78.2")
        zoo.add(runs / "gated", "shapes_gated")
    return folder


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


def released_disentangler():
    return load_disentangler("zoo:shapes_extractor")


def no_network(*args, **kwargs):
    raise OSError("no network in this test")


def outputs(network):
    return np.asarray(network(IMAGES, training=False))


@pytest.mark.slow
def test_a_released_extractor_gives_what_its_run_gives_and_is_frozen(own, runs):
    network = zoo.load("shapes_extractor")
    np.testing.assert_array_equal(outputs(network), outputs(load(runs / "extractor")))
    assert isinstance(network, keras.Model) and network.name == "shapes_extractor"
    assert not network.trainable and network.trainable_weights == []


def test_a_released_gated_classifier_contains_its_extractor_and_gives_what_its_run_gives(own, runs):
    network = zoo.load("shapes_gated")
    np.testing.assert_array_equal(outputs(network), outputs(load_run(RunFolder(runs / "gated"))[0].network))
    inside = network.get_layer("extractor").network
    np.testing.assert_array_equal(outputs(inside), outputs(zoo.load("shapes_extractor")))
    assert network.trainable_weights == []


def test_the_record_says_what_was_trained_and_how_well(own, runs):
    assert zoo.names() == ["shapes_extractor", "shapes_gated"]
    record = zoo.info("shapes_gated")
    config = RunFolder(runs / "gated").config()
    assert record.run_config() == dataclasses.replace(config, extractor="zoo record shapes_extractor")
    assert record.extractor.sha256 == zoo.info("shapes_extractor").weights.sha256
    scores = json.loads((runs / "gated" / "evaluation-validation-last.json").read_text())
    (top1,) = [metric for metric in record.metrics if metric.name == "top1"]
    assert (top1.mean, top1.std, top1.n, top1.seeds) == (scores["top1"], None, 1, (0,))
    assert {metric.name for metric in record.metrics} == {"top1", "top5", "loss"}
    assert (top1.value, top1.tolerance) == (top1.mean, 0.001)
    (loss,) = [metric for metric in record.metrics if metric.name == "loss"]
    assert loss.tolerance == pytest.approx(0.01 * loss.value)
    assert len(record.classes) == 10 and record.licence == "Apache-2.0" and record.epochs == 1


def test_a_record_is_what_its_json_says(own):
    record = zoo.info("shapes_gated")
    assert Record.from_json(record.to_json(), "here") == record


def test_verify_finds_nothing_wrong_with_what_was_just_made(own):
    assert verify() == []


@pytest.mark.slow
def test_verify_finds_nothing_wrong_with_the_zoo_of_the_package(monkeypatch):
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    assert verify(numbers=False) == []
    quick = [name for name in zoo.names() if zoo.info(name).dataset.name == "shapes" and zoo.info(name).audit is None]
    assert verify(quick[:2]) == []


@pytest.mark.long
@pytest.mark.timeout(24 * 3600)
def test_every_number_on_the_cards_of_the_package_comes_out_again(monkeypatch):
    """DATA_DIR is where the data are."""
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    monkeypatch.setattr(examination, "probe", probe)
    assert verify(data_dir=os.environ.get("DATA_DIR")) == []


def test_the_zoo_of_the_package_is_loaded_without_network(monkeypatch):
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in zoo.names():
        assert zoo.load(name).name == name


@pytest.mark.parametrize("installed", [True, False])
def test_the_zoo_of_the_package_is_inside_it_if_installed_and_beside_it_in_a_checkout(installed, tmp_path, monkeypatch):
    package = tmp_path / "cdc_keras"
    expected = package / "zoo_records" if installed else tmp_path / "zoo"
    expected.mkdir(parents=True)
    monkeypatch.setattr(zoo_files, "__file__", str(package / "zoo" / "files.py"))
    assert zoo_files.own() == expected


def test_the_stored_flags_hold_no_place_on_this_machine_and_are_those_of_the_run(own, runs):
    text = (own / "shapes_gated" / "flags.txt").read_text()
    assert str(runs) not in text and "--network=resnet8" in text
    assert "# --extractor=<a run folder with the weights of shapes_extractor>" in text
    assert str(runs) not in (own / "shapes_gated" / PRESET).read_text()


def test_the_card_is_made_from_the_record(own):
    text = (own / "shapes_extractor" / "README.md").read_text()
    assert text == card(zoo.info("shapes_extractor"))
    assert "78.2" in text and "![curves](curves.png)" in text


def test_a_record_shows_no_images_of_the_data_set(own, runs):
    assert (runs / "extractor" / "pictures" / "reconstructions.png").is_file()
    assert (runs / "gated" / "pictures" / "strips.png").is_file()
    assert {path.name for path in own.rglob("*.png")} == {"curves.png", "audit.png"}


def test_the_record_and_its_card_show_the_audit_of_the_run(own, runs):
    record = zoo.info("shapes_extractor")
    found = json.loads((runs / "extractor" / "audit.json").read_text())
    assert {key: found[key] for key in dataclasses.asdict(AUDIT)} == json.loads(record.to_json())["audit"]
    assert zoo.info("shapes_gated").audit is None
    text = (own / "shapes_extractor" / "README.md").read_text()
    assert "\n".join(described(record.audit)) in text and "probes read holds to 2.0%" in text
    assert "![audit](audit.png)" in text and "audit.png" in record.files


@pytest.fixture(scope="module")
def audited(runs, released, tmp_path_factory):
    """(zoo, run): the zoo, and the extractor's run audited beside a rival and with a judge out of it."""
    folder = tmp_path_factory.mktemp("audited")
    place, run = shutil.copytree(released, folder / "zoo"), shutil.copytree(runs / "extractor", folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDC_KERAS_ZOO", str(place))
        patch.setattr(examination, "probe", untrained_probe)
        audit(run, rivals={"twin": "zoo:shapes_extractor"}, classifier="zoo:shapes_gated", limit=40)
        zoo.add(run, "shapes_audited")
    return place, run


@pytest.mark.slow
def test_an_audit_with_rival_and_judge_is_made_again_with_those_of_the_zoo(audited, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(audited[0]))
    known = zoo.info("shapes_audited").audit
    assert known.rivals == {"twin": zoo.info("shapes_extractor").weights.sha256}
    assert known.classifier == zoo.info("shapes_gated").weights.sha256
    assert {r.reader for r in known.readings} == set(READERS)
    assert verify(["shapes_audited"]) == []


def test_an_audit_beside_networks_that_are_not_in_the_zoo_is_not_released(audited, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="the rival twin of .*audit.json is not in the zoo"):
        zoo.add(audited[1], "extractor")
    run = shutil.copytree(audited[1], tmp_path / "run")
    found = json.loads((run / "audit.json").read_text())
    checkpoint = RunFolder(runs / "gated").checkpoint(RunFolder(runs / "gated").steps()[-1])
    (run / "audit.json").write_text(json.dumps(found | {"rivals": {}, "classifier": sha256(checkpoint)}))
    with pytest.raises(UserError, match="the classifier of .* is not in the zoo .*--classifier=zoo:<name>"):
        zoo.add(run, "extractor")
    del found["limit"]
    (run / "audit.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="has no limit, as another version wrote it"):
        zoo.add(run, "extractor")


def moved(record, by):
    """Returns the changes to a record that move a score, a reading and an erased share by `by` tolerances."""
    values = json.loads(record.to_json())
    metric, reading = values["metrics"][0], values["audit"]["readings"][0]
    metric["value"] += by * metric["tolerance"]
    metric["mean"] = metric["value"]
    # An interval around it, whose ends have moved by less than they may.
    accuracy = reading["accuracy"] = reading["accuracy"] + by * values["audit"]["tolerance"]["probes"]
    reading["low"], reading["high"] = min(reading["low"], accuracy), max(reading["high"], accuracy)
    values["audit"]["erased"]["erased"] += by * values["audit"]["tolerance"]["erased"]
    return {key: values[key] for key in ("metrics", "audit")}


def test_numbers_that_do_not_come_out_again_are_found(own):
    before = zoo.info("shapes_extractor")
    values = moved(before, by=1.1)
    rewrite(own / "shapes_extractor", **values)
    problems = verify(["shapes_extractor"])
    assert len(problems) == 3 and all(x.startswith("shapes_extractor: ") for x in problems)
    score, erased, reading = problems
    metric = values["metrics"][0]
    assert f"{metric['name']} on validation comes out as {before.metrics[0].value:.6g}, and preset.json" in score
    assert f"says {metric['value']:.6g} to within {metric['tolerance']:.2g}" in score
    assert f"audit.erased.erased comes out as {before.audit.erased['erased']:.6g}" in erased
    first = before.audit.readings[0]
    assert f"audit: {first.target} from {first.source} by {first.reader}, accuracy comes out as" in reading
    assert f"{first.accuracy:.6g}" in reading and "to within 0.02" in reading


def test_numbers_within_their_tolerance_pass(own):
    rewrite(own / "shapes_extractor", **moved(zoo.info("shapes_extractor"), by=0.9))
    assert verify(["shapes_extractor"]) == []


def test_a_reading_that_is_not_made_again_is_found(own):
    values = json.loads(zoo.info("shapes_extractor").to_json())["audit"]
    values["readings"][0] |= {"source": "another"}
    rewrite(own / "shapes_extractor", audit=values)
    problems = verify(["shapes_extractor"])
    assert len(problems) == 2 and "from another by linear comes out as missing" in problems[0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"config": {"dataset": "folder"}}, "a folder of images needs its path .*; say where the data are by data_dir"),
        (
            {"dataset": {"name": "shapes", "train_images": 9}},
            "was trained on 9 images of 10 .* 64 of 10 are",
        ),
    ],
)
def test_numbers_that_can_not_be_made_again_are_a_problem(values, sentence, own):
    if "config" in values:
        values = {"config": zoo.info("shapes_extractor").config | values["config"]}
    rewrite(own / "shapes_extractor", **values)
    (problem,) = verify(["shapes_extractor"])
    assert re.search(f"^shapes_extractor: scores and audit can not be computed again: .*{sentence}", problem)
    assert verify(["shapes_extractor"], numbers=False) == []


def test_a_record_scores_as_its_run_does(own, runs):
    for name, run in (("shapes_extractor", "extractor"), ("shapes_gated", "gated")):
        scores = evaluate_record(name, split="validation")
        found = json.loads((runs / run / "evaluation-validation-last.json").read_text())
        assert scores == pytest.approx({key: found[key] for key in scores}, rel=1e-5)
        assert wrong_scores(zoo.info(name), "validation", scores) == []
    assert set(evaluate_record("shapes_extractor")) == {
        "reconstruction_loss",
        "discriminator_loss",
        "discriminator_accuracy",
    }
    with pytest.raises(UserError, match="did you mean 'shapes_gated'"):
        evaluate_record("shape_gated")


def command(*arguments):
    root = pathlib.Path(__file__).parents[2]
    return subprocess.run([sys.executable, *arguments], env=os.environ, capture_output=True, text=True, cwd=root)


@pytest.mark.slow
def test_evaluate_py_scores_a_record_beside_its_card_and_fails_beyond_the_tolerance(own):
    before = sorted(own.rglob("*"))
    done = command("evaluate.py", "--model=zoo:shapes_gated", "--split=validation")
    assert done.returncode == 0, done.stderr
    assert re.search(r"top1 +0\.\d+ +0\.\d+ +0 +0\.001", done.stdout), done.stdout
    assert sorted(own.rglob("*")) == before
    metrics = json.loads(zoo.info("shapes_gated").to_json())["metrics"]
    metrics[0] |= {"value": 0.99, "mean": 0.99}
    rewrite(own / "shapes_gated", metrics=metrics)
    done = command("evaluate.py", "--model=zoo:shapes_gated", "--split=validation")
    assert done.returncode == 1 and "error: shapes_gated: top1 on validation comes out as" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --model"),
        (["--model=zoo:shapes_gated", "--weights=best"], "leave them out with zoo:"),
        (["--model=zoo:shapes"], "did you mean 'shapes_gated'"),
    ],
)
def test_evaluate_answers_bad_input_with_one_sentence(arguments, sentence, own):
    assert sentence in refusal("evaluate", *arguments)


def test_a_context_model_that_is_a_part_of_a_classifier_has_no_scores_and_no_extraction_network(tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    config = dataclasses.replace(EXTRACTOR, context="dm", network="resnet8", warmup_epochs=0.1)
    record = zoo.add(train(config, tmp_path / "run").path, "dm")
    assert record.metrics == () and DISENTANGLER not in record.files
    assert "has no scores of its own" in (tmp_path / "dm" / "README.md").read_text()
    with pytest.raises(UserError, match="dm is a part of a classifier and has no scores of its own"):
        evaluate_record("dm")
    found = audit("zoo:dm", out=tmp_path / "audit", limit=40)
    assert "Of T only the encoder is known" in found["notes"][0] and found["reconstruction_mse"] == {}
    assert verify() == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "audit.png").unlink(), "has audit.json without audit.png; run cdc-keras audit"),
        (lambda run: (run / "audit.json").write_text("{}"), "is the audit of other weights; run cdc-keras audit"),
    ],
)
def test_an_audit_of_other_weights_or_without_figure_is_not_released(break_it, message, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    run = shutil.copytree(runs / "extractor", tmp_path / "run")
    break_it(run)
    with pytest.raises(UserError, match=message):
        zoo.add(run, "extractor")
    assert not (tmp_path / "extractor").exists()


def test_the_audit_of_a_record_is_complete(own, tmp_path):
    found = audit("zoo:shapes_extractor", out=tmp_path / "audit", limit=40)
    assert found["extractor_sha256"] == zoo.info("shapes_extractor").weights.sha256
    assert {reading["reader"] for reading in found["readings"]} == {"linear", "knn", "mlp", "conv", "discriminator"}
    assert "context" in found["reconstruction_mse"]
    assert "only the encoder is known" not in (tmp_path / "audit" / "audit.md").read_text()


def test_a_stale_card_is_found(own):
    folder = own / "shapes_extractor"
    path = folder / "README.md"
    path.write_text(path.read_text().replace("78.2", "88.2"))
    files = json.loads((folder / PRESET).read_text())["files"]
    change(folder, files=files | {"README.md": dataclasses.asdict(zoo_files.file_of(path))})
    (problem,) = verify(["shapes_extractor"])
    assert "README.md is not the card" in problem


def test_loading_from_a_folder_needs_no_network(own, monkeypatch):
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    zoo.load("shapes_gated")


def test_an_unknown_name_is_refused_with_the_nearest_and_all_there_are(own):
    with pytest.raises(UserError, match="did you mean 'shapes_gated'. There are shapes_extractor, shapes_gated"):
        zoo.load("shape_gatd")


def test_the_variable_is_read_at_every_call(own, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path / "empty"))
    assert zoo.names() == []
    with pytest.raises(UserError, match="it has none yet"):
        zoo.info("shapes_gated")
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="is a folder or an http, https or file URL, not .*nowhere"):
        zoo.names()


def test_a_record_outside_of_a_zoo_is_loaded_by_its_path(released, tmp_path, monkeypatch):
    folder = shutil.copytree(released / "shapes_extractor", tmp_path / "mine")
    assert zoo.load(folder).name == zoo.load(f"{folder}/").name == "shapes_extractor"
    monkeypatch.chdir(tmp_path)
    assert zoo.info("mine").name == "shapes_extractor"


def test_a_gated_record_outside_of_a_zoo_finds_its_extractor_in_the_zoo(own, tmp_path):
    folder = shutil.copytree(own / "shapes_gated", tmp_path / "alone" / "mine")
    assert zoo.info(folder).extractor.name == "shapes_extractor"
    np.testing.assert_array_equal(outputs(zoo.load(folder)), outputs(zoo.load("shapes_gated")))


def test_a_gated_record_does_not_take_another_extractor(own):
    change(own / "shapes_gated", extractor={"name": "shapes_extractor", "sha256": "0" * 64})
    with pytest.raises(UserError, match="shapes_extractor of the zoo .* is not the extractor that was gated with"):
        zoo.load("shapes_gated")


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


def test_one_changed_byte_in_any_file_is_found_by_verify(own):
    for path in sorted((own / "shapes_extractor").iterdir()):
        before = path.read_bytes()
        flip_a_byte(path, len(before) // 2)
        problems = verify(["shapes_extractor"])
        assert problems and all(path.name in problem for problem in problems), path
        path.write_bytes(before)


def test_a_missing_cut_or_additional_file_is_found(own):
    folder = own / "shapes_extractor"
    (folder / "flags.txt").unlink()
    (folder / "README.md").write_text("short")
    (folder / "notes.txt").write_text("")
    problems = "\n".join(verify(["shapes_extractor"]))
    assert "flags.txt is missing" in problems and "README.md has 5 bytes" in problems
    assert "notes.txt is not in preset.json" in problems


def test_a_record_that_the_index_does_not_list_is_refused_by_name_and_found(own):
    (own / "index.json").write_text("{}")
    with pytest.raises(UserError, match="index.json does not list shapes_gated"):
        zoo.load("shapes_gated")
    assert len(verify()) == 2


def test_a_record_under_another_name_is_refused(own):
    (own / "shapes_gated").rename(own / "better")
    (own / "index.json").write_text(json.dumps({"better": sha256(own / "better" / PRESET)}))
    with pytest.raises(UserError, match="is the record of shapes_gated, not of better"):
        zoo.load("better")


@pytest.mark.parametrize("index", ['{"../x": "%s"}' % ("0" * 64), '{"x": "short"}', "[]", "{", "NaN"])  # noqa: UP031
def test_an_index_that_is_none_is_refused(index, own):
    (own / "index.json").write_text(index)
    with pytest.raises(UserError, match="index.json|a record's name"):
        zoo.names()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"surprise": 1}, r"preset is to be without other keys, .*surprise"),
        ({"dataset": {"name": "shapes"}}, r"dataset is to be with \['train_images'\]"),
        ({"dataset": {"name": "shapes", "train_images": 1, "x": 1}}, "dataset is to be without other keys"),
        ({"hours": "long"}, "hours is to be a number"),
        ({"hours": float("inf")}, "is no JSON"),
        ({"epochs": True}, "epochs is to be a whole number"),
        ({"classes": "cat"}, "classes is to be a list"),
        ({"classes": ["cat", 1]}, r"classes\[1\] is to be text"),
        ({"metrics": [{"name": "top1"}]}, r"metrics\[0\] is to be with"),
        ({"versions": {"keras": 3}}, "versions.keras is to be text"),
        ({"name": "Up"}, "a record's name is"),
        ({"name": "../up"}, "a record's name is"),
        ({"kind": "extractor"}, "config.task is to be extractor"),
        ({"kind": "other"}, "kind is to be extractor or classifier"),
        ({"fingerprint": None}, "fingerprint is to be text"),
        ({"config": {"task": "classifier", "colour": "red"}}, r"config is to be settings of a run, .*colour"),
        ({"config": {"task": "classifier", "data_dir": "/home"}}, r"config is to be settings of a run, .*data_dir"),
        ({"config": {"task": "classifier", "image_size": "32"}}, "config.image_size is to be a whole number"),
        ({"config": {"task": "classifier", "image_size": 0}}, "image_size is at least 1"),
        ({"config": {"task": "classifier", "gate_sites": [1]}}, r"config.gate_sites\[0\] is to be text"),
        ({"config": {"task": "classifier"}}, "config.image_size is to be a number of pixels"),
        ({"weights": {"file": "../a.weights.h5", "bytes": 1, "sha256": "0" * 64}}, "plain names of files"),
        ({"weights": {"file": "/tmp/a.weights.h5", "bytes": 1, "sha256": "0" * 64}}, "plain names of files"),
        ({"weights": {"file": "a.pkl", "bytes": 1, "sha256": "0" * 64}}, "a .weights.h5"),
        ({"weights": {"file": "a.weights.h5", "bytes": -1, "sha256": "0" * 64}}, "bytes is to be 0 or more"),
        ({"weights": {"file": "a.weights.h5", "bytes": 1, "sha256": "0"}}, "64 hexadecimal digits"),
        ({"files": {"..": {"bytes": 1, "sha256": "0" * 64}}}, "plain names of files"),
        ({"files": {"a/b": {"bytes": 1, "sha256": "0" * 64}}}, "plain names of files"),
        ({"files": {"a\\b": {"bytes": 1, "sha256": "0" * 64}}}, "plain names of files"),
        ({"files": {PRESET: {"bytes": 1, "sha256": "0" * 64}}}, "plain names of files"),
        ({"extractor": {"name": "../x", "sha256": "0" * 64}}, "a record's name is"),
        ({"created": "today"}, "created is to be a date"),
        ({"audit": {"seed": 0}}, r"audit is to be with \['classifier', 'erased'"),
        ({"audit": dataclasses.asdict(AUDIT) | {"limit": 0}}, "audit.limit is to be more than 0"),
        ({"audit": dataclasses.asdict(AUDIT) | {"rivals": {"gm": "x"}}}, "audit.rivals.gm is to be a sha256"),
        ({"audit": dataclasses.asdict(AUDIT) | {"classifier": "x"}}, "audit.classifier is to be a sha256"),
        ({"metrics": [METRIC | {"split": "../test"}]}, "metrics.split is to be test or validation"),
        ({"metrics": [METRIC | {"mean": 0.6}]}, "metrics.mean is to be the value itself for one run"),
        ({"metrics": [METRIC | {"tolerance": 0.0}]}, "metrics.tolerance is to be more than 0"),
        ({"audit": dataclasses.asdict(AUDIT) | {"scored_images": "many"}}, "audit.scored_images is to be a whole"),
        ({"audit": dataclasses.asdict(AUDIT) | {"erased": {"T": -1.0}}}, "audit.erased.T is to be 0 or more"),
        ({"audit": dataclasses.asdict(AUDIT) | {"readings": [1]}}, r"audit.readings\[0\] is to be an object"),
        ({"audit": dataclasses.asdict(AUDIT)}, "audit is to be null but for an extractor"),
    ],
)
def test_a_preset_with_a_wrong_value_is_refused_with_its_key(values, message, own):
    change(own / "shapes_gated", **values)
    with pytest.raises(UserError, match=message) as refused:
        zoo.info("shapes_gated")
    assert PRESET in str(refused.value)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Record)])
def test_a_preset_without_a_key_is_refused_with_its_name(key, own):
    preset = json.loads((own / "shapes_extractor" / PRESET).read_text())
    del preset[key]
    with pytest.raises(UserError, match=rf"preset.json: preset is to be with \['{key}'\]"):
        Record.from_json(json.dumps(preset), PRESET)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xfe", "null", "1" * 10_000])
def test_a_preset_that_is_no_object_is_refused(text):
    with pytest.raises(UserError, match="here"):
        Record.from_json(text, "here")


def test_a_preset_larger_than_any_is_not_read_on(own):
    (own / "shapes_extractor" / PRESET).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match="preset.json is larger than 1048576 bytes"):
        zoo.info("shapes_extractor")


def test_another_fingerprint_is_refused_before_weights_are_assigned(own, monkeypatch):
    change(own / "shapes_extractor", fingerprint="0" * 64)
    monkeypatch.setattr(keras.Model, "load_weights", no_network)
    with pytest.raises(UserError, match="extractor.weights.h5 is of a network with fingerprint 0000"):
        zoo.load("shapes_extractor")


def test_another_golden_output_or_number_of_parameters_is_found(own):
    folder = own / "shapes_extractor"
    golden = dataclasses.asdict(zoo.info("shapes_extractor").golden)
    change(folder, golden=golden | {"values": [v + 1e-3 for v in golden["values"]]}, parameters=5)
    problems = "\n".join(verify(["shapes_extractor"]))
    assert "preset.json says 5 parameters" in problems and "as the output 0 of the golden output" in problems


def test_weights_of_another_network_are_refused(own, tmp_path):
    network = zoo.load("shapes_extractor")
    fewer = keras.Model(network.inputs[0], network.layers[4].output)
    for i, other in enumerate((fewer, zoo.load("shapes_gated"))):
        other.save_weights(tmp_path / f"{i}.weights.h5")
        replace_weights(own / "shapes_extractor", tmp_path / f"{i}.weights.h5")
        with pytest.raises(UserError, match="extractor.weights.h5 has .* values where its network has"):
            zoo.load("shapes_extractor")


def test_the_whole_extraction_network_of_a_record_scores_as_its_run_does(own, runs):
    trained, released = load_run(RunFolder(runs / "extractor"))[0], released_disentangler()
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


def test_an_extraction_network_of_other_size_or_that_is_not_listed_is_refused(own, tmp_path):
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


def external_link(file):
    file["layers/more"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    file["more"] = h5py.SoftLink("/layers")


def external_dataset(file):
    file.create_dataset("layers/more", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual_dataset(file):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("layers/more", layout)


@pytest.mark.parametrize("file", ["extractor.weights.h5", DISENTANGLER])
@pytest.mark.parametrize("reach_out", [external_link, soft_link, external_dataset, virtual_dataset])
def test_weights_that_reach_out_of_their_file_are_refused(reach_out, file, own, tmp_path, monkeypatch):
    path = shutil.copyfile(own / "shapes_extractor" / file, tmp_path / "evil.weights.h5")
    with h5py.File(path, "a") as opened:
        reach_out(opened)
    replace_weights(own / "shapes_extractor", path, file)
    monkeypatch.setattr(keras.Model, "load_weights", no_network)
    with pytest.raises(UserError, match=f"{file} (has a link at|takes) .*more"):
        released_disentangler() if file == DISENTANGLER else zoo.load("shapes_extractor")


def test_a_circle_of_links_inside_a_file_ends(tmp_path):
    with h5py.File(tmp_path / "circle.h5", "w") as file:
        file.create_group("a")["b"] = file["/"]
        file["a/values"] = np.zeros((2, 3))
    assert zoo_files.check_hdf5(tmp_path / "circle.h5") == 6


def test_a_name_can_not_leave_the_zoo(own, runs):
    with pytest.raises(UserError, match="is no folder of a record"):
        zoo.load("../elsewhere")
    with pytest.raises(UserError, match="a record's name is"):
        zoo.add(runs / "extractor", "../elsewhere")
    assert not (own.parent / "elsewhere").exists()


def test_a_taken_name_is_refused(own, runs):
    with pytest.raises(UserError, match="has a shapes_gated already"):
        zoo.add(runs / "gated", "shapes_gated")


def test_a_gated_classifier_is_added_after_its_extractor(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="the extractor that gates .* is not in the zoo .*add .*extractor to it first"):
        zoo.add(runs / "gated", "gated")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run.note(finished=False), "has not finished training"),
        (lambda run: (run.path / "evaluation-validation-last.json").unlink(), "is not scored"),
        (lambda run: run.checkpoint(run.steps()[-1]).rename(run.checkpoint(9)), "is not scored"),
    ],
)
def test_a_run_that_is_not_finished_or_not_scored_is_not_added(break_it, message, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    run = RunFolder(shutil.copytree(runs / "extractor", tmp_path / "run"))
    break_it(run)
    with pytest.raises(UserError, match=message):
        zoo.add(run.path, "extractor")


def test_metrics_are_over_all_runs_that_differ_in_the_seed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    other = shutil.copytree(runs / "extractor", tmp_path / "other")
    with pytest.raises(UserError, match="is to differ from .* in the seed and in nothing else"):
        zoo.add(runs / "extractor", "extractor", more_seeds=[other])
    for file, key, value in (
        ("config.json", "seed", 7),
        ("evaluation-validation-last.json", "reconstruction_loss", 3.0),
    ):
        (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | {key: value}))
    metrics = {metric.name: metric for metric in zoo.add(runs / "extractor", "extractor", more_seeds=[other]).metrics}
    loss = metrics["reconstruction_loss"]
    first = json.loads((runs / "extractor" / "evaluation-validation-last.json").read_text())["reconstruction_loss"]
    assert (loss.n, loss.seeds, loss.mean) == (2, (0, 7), pytest.approx((first + 3) / 2))
    assert (loss.value, loss.tolerance) == (first, pytest.approx(0.01 * first))
    assert loss.std == pytest.approx(abs(3 - first) / 2**0.5)


def test_what_does_not_hold_leaves_no_record_behind(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    monkeypatch.setattr("cdc_keras.release.add.problems_of", lambda *args: ["something is wrong"])
    with pytest.raises(UserError, match="does not hold: something is wrong"):
        zoo.add(runs / "extractor", "extractor")
    assert list(tmp_path.iterdir()) == []


def test_a_zoo_at_a_url_is_fetched_once_and_then_needs_no_network(served):
    assert zoo.names() == ["shapes_extractor", "shapes_gated"]
    expected = outputs(zoo.load("shapes_gated"))
    assert sorted(served.asked) == [
        "/index.json",
        "/shapes_extractor/preset.json",
        "/shapes_gated/classifier.weights.h5",
        "/shapes_gated/preset.json",
    ]
    served.shutdown()
    served.server_close()
    np.testing.assert_array_equal(outputs(zoo.load("shapes_gated")), expected)
    assert zoo.names() == ["shapes_extractor", "shapes_gated"] and len(served.asked) == 4
    with pytest.raises(UserError, match="can not fetch http.*shapes_extractor/extractor.weights.h5.*go online"):
        zoo.load("shapes_extractor")


def test_a_zoo_at_a_url_is_verified(served):
    assert verify(["shapes_extractor"]) == []


def test_a_file_url_is_a_zoo_too(own, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", own.as_uri())
    monkeypatch.setenv("CDC_KERAS_CACHE", str(tmp_path / "cache"))
    assert zoo.load("shapes_extractor").name == "shapes_extractor"


@pytest.mark.parametrize("file", ["shapes_extractor/preset.json", "shapes_extractor/extractor.weights.h5"])
@pytest.mark.parametrize("damage", ["flipped", "cut off", "gone"])
def test_a_download_that_is_not_the_file_listed_is_refused_and_not_kept(file, damage, served):
    path = served.folder / file
    before = path.read_bytes()
    if damage == "flipped":
        flip_a_byte(path, 500)
    else:
        path.write_bytes(before[:500]) if damage == "cut off" else path.unlink()
    with pytest.raises(UserError, match=f"{file}(: HTTP Error 404| is not the file that the zoo lists)"):
        zoo.load("shapes_extractor")
    kept = {p.name for p in served.cache.rglob("*") if p.is_file()}
    assert kept == ({"index.json"} if file.endswith("json") else {"index.json", "preset.json"})
    path.write_bytes(before)
    assert zoo.load("shapes_extractor")


def test_no_more_is_downloaded_than_the_record_states(served):
    path = served.folder / "shapes_extractor" / "extractor.weights.h5"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * 100)
    zoo.load("shapes_extractor")
    (cached,) = served.cache.rglob("extractor.weights.h5")
    assert cached.stat().st_size == size


def test_a_damaged_file_of_the_cache_is_fetched_again(served):
    zoo.load("shapes_extractor")
    (cached,) = served.cache.rglob("extractor.weights.h5")
    flip_a_byte(cached)
    served.asked.clear()
    zoo.load("shapes_extractor")
    assert served.asked == ["/shapes_extractor/extractor.weights.h5"]


def test_a_zoo_at_a_url_is_not_added_to(served, runs):
    with pytest.raises(UserError, match="records are added to a folder"):
        zoo.add(runs / "extractor", "other")


def test_the_command_lists_the_records_and_fails_on_a_problem(own, capsys):
    run_command("zoo", "--numbers=false")
    listed = capsys.readouterr().out
    assert "2 records in" in listed and "shapes_gated" in listed and "were not computed again" in listed
    run_command("zoo", "--names=shapes_gated")
    told = capsys.readouterr()
    assert "scores and audits, computed again" in told.out and "verifying shapes_gated: scores on" in told.err
    assert "verifying shapes_extractor" not in told.err
    flip_a_byte(own / "shapes_gated" / "flags.txt")
    assert "flags.txt has sha256" in refusal("zoo")


def test_the_command_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cdc_keras", "zoo"],
        env=os.environ | {"CDC_KERAS_ZOO": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.returncode == 0 and "0 records in" in done.stdout, done.stderr


@pytest.mark.slow
def test_records_gate_and_teach_a_new_run(own, tmp_path):
    records = {"extractor": "zoo:shapes_extractor", "teacher": "zoo:shapes_gated"}
    run = train(dataclasses.replace(GATED, network="vgg13_slim", **records), tmp_path / "student")
    known, released = run.notes(), zoo.load("shapes_extractor").get_weights()
    assert known["extractor_sha256"] == zoo.info("shapes_extractor").weights.sha256
    assert known["teacher"]["sha256"] == zoo.info("shapes_gated").weights.sha256
    shutil.rmtree(own)  # the run holds what it needs of them
    inside = load_run(run)[0].network.get_layer("extractor").network.get_weights()
    for a, b in zip(inside, released, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({"extractor": "zoo:shapes_gated"}, "zoo:shapes_gated is of kind classifier; give one of kind extractor"),
        ({"teacher": "zoo:shapes_extractor"}, "zoo:shapes_extractor is of kind extractor; give one of kind classifier"),
        ({"extractor": "zoo:shape_extractor"}, "did you mean 'shapes_extractor'"),
    ],
)
def test_a_record_that_is_none_or_of_the_other_kind_is_refused_before_training(own, tmp_path, records, sentence):
    with pytest.raises(UserError, match=sentence):
        train(dataclasses.replace(GATED, **records), tmp_path / "run")
    assert not (tmp_path / "run").exists()
