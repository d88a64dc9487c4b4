"""Making a record: what a run must have, and what the record then holds."""

import dataclasses
import json
import shutil

import pytest

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.release.add import add
from cdc_keras.runs.folder import RunFolder
from cdc_keras.weights import sha256
from cdc_keras.zoo.record import PRESET


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
    assert top1.value == top1.mean and scores["images"] < 3000  # so few that three of them are more than 0.001
    assert top1.tolerance == min(3 / scores["images"], max(0.1 * top1.value, 0.01))
    (loss,) = [metric for metric in record.metrics if metric.name == "loss"]
    assert loss.tolerance == pytest.approx(0.01 * loss.value)
    assert len(record.class_names) == 10 and record.licence == "Apache-2.0" and record.epochs == 1


def test_the_stored_flags_hold_no_place_on_this_machine(own, runs):
    text = (own / "shapes_gated" / "flags.txt").read_text()
    assert str(runs) not in text and "--network=resnet8" in text
    assert "# --extractor=<a run folder with the weights of shapes_extractor>" in text
    assert str(runs) not in (own / "shapes_gated" / PRESET).read_text()


def test_a_record_shows_no_images_of_the_data_set(own, runs):
    assert (runs / "extractor" / "pictures" / "reconstructions.png").is_file()
    assert (runs / "gated" / "pictures" / "strips.png").is_file()
    assert {path.name for path in own.rglob("*.png")} == {"curves.png", "audit.png"}


def test_an_audit_beside_networks_outside_the_zoo_is_not_released(audited, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="the rival twin of .*audit.json is not in the zoo"):
        add(audited[1], "extractor")
    run = shutil.copytree(audited[1], tmp_path / "run")
    found = json.loads((run / "audit.json").read_text())
    checkpoint = RunFolder(runs / "gated").checkpoint(RunFolder(runs / "gated").steps()[-1])
    (run / "audit.json").write_text(json.dumps(found | {"rivals": {}, "classifier": sha256(checkpoint)}))
    with pytest.raises(UserError, match="the classifier of .* is not in the zoo .*--classifier=zoo:<name>"):
        add(run, "extractor")
    del found["limit"]
    (run / "audit.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"audit is to be with \['limit'\]"):
        add(run, "extractor")


def of_other_weights(run):
    result = json.loads((run / "audit.json").read_text())
    (run / "audit.json").write_text(json.dumps(result | {"extractor_sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "audit.png").unlink(), "has audit.json without audit.png; run cdc-keras audit"),
        (lambda run: (run / "audit.json").write_text("{}"), r"audit.json: audit is to be with \['classifier'"),
        (of_other_weights, "is the audit of other weights; run cdc-keras audit"),
    ],
)
def test_an_audit_of_other_weights_is_not_released(break_it, message, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    run = shutil.copytree(runs / "extractor", tmp_path / "run")
    break_it(run)
    with pytest.raises(UserError, match=message):
        add(run, "extractor")
    assert not (tmp_path / "extractor").exists()


def test_a_name_cannot_leave_the_zoo(own, runs):
    with pytest.raises(UserError, match="is no folder of a record"):
        zoo.load("../elsewhere")
    with pytest.raises(UserError, match="a record's name is"):
        add(runs / "extractor", "../elsewhere")
    assert not (own.parent / "elsewhere").exists()


def test_a_taken_name_is_refused(own, runs):
    with pytest.raises(UserError, match="has a shapes_gated already"):
        add(runs / "gated", "shapes_gated")


def test_a_gated_classifier_is_added_after_its_extractor(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="the extractor that gates .* is not in the zoo .*add .*extractor to it first"):
        add(runs / "gated", "gated")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: run.note(finished=False), "has not finished training"),
        (lambda run: (run.path / "evaluation-validation-last.json").unlink(), "is not scored"),
        (lambda run: run.checkpoint(run.steps()[-1]).rename(run.checkpoint(9)), "is not scored"),
    ],
)
def test_a_run_not_finished_or_not_scored_is_not_added(break_it, message, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    run = RunFolder(shutil.copytree(runs / "extractor", tmp_path / "run"))
    break_it(run)
    with pytest.raises(UserError, match=message):
        add(run.path, "extractor")


def test_metrics_are_over_runs_that_differ_in_the_seed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    other = shutil.copytree(runs / "extractor", tmp_path / "other")
    with pytest.raises(UserError, match="is to differ from .* in the seed and in nothing else"):
        add(runs / "extractor", "extractor", more_seeds=[other])
    for file, key, value in (
        ("config.json", "seed", 7),
        ("evaluation-validation-last.json", "reconstruction_loss", 3.0),
    ):
        (other / file).write_text(json.dumps(json.loads((other / file).read_text()) | {key: value}))
    metrics = {metric.name: metric for metric in add(runs / "extractor", "extractor", more_seeds=[other]).metrics}
    loss = metrics["reconstruction_loss"]
    first = json.loads((runs / "extractor" / "evaluation-validation-last.json").read_text())["reconstruction_loss"]
    assert (loss.n, loss.seeds, loss.mean) == (2, (0, 7), pytest.approx((first + 3) / 2))
    assert (loss.value, loss.tolerance) == (first, pytest.approx(0.01 * first))
    assert loss.std == pytest.approx(abs(3 - first) / 2**0.5)


def test_a_record_that_does_not_hold_is_not_left_behind(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    monkeypatch.setattr("cdc_keras.release.add.problems_of", lambda *args: ["something is wrong"])
    with pytest.raises(UserError, match="does not hold: something is wrong"):
        add(runs / "extractor", "extractor")
    assert list(tmp_path.iterdir()) == []


def test_a_zoo_at_a_url_is_not_added_to(served, runs):
    with pytest.raises(UserError, match="records are added to a folder"):
        add(runs / "extractor", "other")
