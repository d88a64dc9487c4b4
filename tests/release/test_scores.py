"""The scores and the audit of a record, computed again."""

import dataclasses
import json
import re

import pytest
from commands import refusal, run_command
from records import rewrite
from tiny_runs import EXTRACTOR

from cdc_keras import zoo
from cdc_keras.audit.audit import audit
from cdc_keras.errors import UserError
from cdc_keras.release.add import add
from cdc_keras.release.scores import evaluate_record
from cdc_keras.release.verify import verify
from cdc_keras.runs.training import train
from cdc_keras.zoo.record import DISENTANGLER, wrong_scores


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


def test_evaluate_scores_a_record_and_fails_beyond_tolerance(own, capsys):
    before = sorted(own.rglob("*"))
    run_command("evaluate", "--model=zoo:shapes_gated", "--split=validation")
    printed = capsys.readouterr().out
    (top1,) = [metric for metric in zoo.info("shapes_gated").metrics if metric.name == "top1"]
    assert re.search(rf"top1 +0\.\d+ +0\.\d+ +0 +{top1.tolerance:.2g}", printed), printed
    assert sorted(own.rglob("*")) == before
    metrics = json.loads(zoo.info("shapes_gated").to_json())["metrics"]
    next(x for x in metrics if x["name"] == "top1").update(value=0.99, mean=0.99)
    rewrite(own / "shapes_gated", metrics=metrics)
    said = refusal("evaluate", "--model=zoo:shapes_gated", "--split=validation")
    assert said.startswith("shapes_gated: top1 on validation comes out as")


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


def test_a_context_model_in_a_classifier_has_no_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    config = dataclasses.replace(EXTRACTOR, context="dm", network="resnet8", warmup_epochs=0.1)
    record = add(train(config, tmp_path / "run", pictures=False).path, "dm")
    assert record.metrics == () and DISENTANGLER not in record.files
    assert "has no scores of its own" in (tmp_path / "dm" / "README.md").read_text()
    with pytest.raises(UserError, match="dm is a part of a classifier and has no scores of its own; cdc-keras audit"):
        evaluate_record("dm")
    found = audit("zoo:dm", out=tmp_path / "audit", limit=40)
    assert "Of T only the encoder is known" in found["notes"][0] and found["reconstruction_mse"] == {}
    assert verify() == []


def test_the_audit_of_a_record_is_complete(own, tmp_path):
    found = audit("zoo:shapes_extractor", out=tmp_path / "audit", limit=40)
    assert found["extractor_sha256"] == zoo.info("shapes_extractor").weights.sha256
    assert {x["reader"] for x in found["findings"]} == {"linear", "knn", "mlp", "conv", "discriminator"}
    assert "context" in found["reconstruction_mse"]
    assert "only the encoder is known" not in (tmp_path / "audit" / "audit.md").read_text()
