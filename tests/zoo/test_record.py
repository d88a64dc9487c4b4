"""preset.json: what a record says, and every value that it refuses."""

import dataclasses
import json

import pytest
from records import change

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.zoo.findings import Audit, Finding
from cdc_keras.zoo.record import PRESET, Golden, Metric, Record

AUDIT = Audit(
    seed=0,
    limit=100,
    rivals={},
    classifier=None,
    probe_images=40,
    scored_images=50,
    erased={"erased": 0.1},
    findings=(
        Finding("category", "context", "conv", 0.41, 0.4, 0.42, 0.1),
        Finding("category", "context", "discriminator", 0.14, 0.12, 0.15, 0.1),
    ),
)
GOLDEN = dataclasses.asdict(Golden(0, 2, (2, 10), 0.1, 1.0, (0,), (0.1,), 1e-4))
METRIC = dataclasses.asdict(Metric("top1", "test", 0.5, 0.001, 0.5, None, 1, (0,)))


def test_a_record_is_what_its_json_says(own):
    record = zoo.info("shapes_gated")
    assert Record.from_json(record.to_json(), "here") == record


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"surprise": 1}, r"preset is to be without other keys, .*surprise"),
        ({"dataset": {"name": "shapes"}}, r"dataset is to be with \['train_images'\]"),
        ({"dataset": {"name": "shapes", "train_images": 1, "x": 1}}, "dataset is to be without other keys"),
        ({"hours": "long"}, "hours is to be a number"),
        ({"hours": float("inf")}, "is no JSON"),
        ({"epochs": True}, "epochs is to be a whole number"),
        ({"class_names": "cat"}, "class_names is to be a list"),
        ({"class_names": ["cat", 1]}, r"class_names\[1\] is to be text"),
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
        ({"config": {"task": "classifier"}}, "config.image_size is to be at most 2048, but 'None'"),
        ({"config": {"task": "classifier", "image_size": 100_000}}, "config.image_size is to be at most 2048"),
        ({"name": "a" * 101}, "a record's name is"),
        ({"parameters": 0}, "parameters is to be more than 0"),
        ({"hours": 1e300}, "hours is to be a number below 1e\\+300"),
        ({"hours": 10**400}, "hours is to be a number below 1e\\+300"),
        ({"golden": GOLDEN | {"seed": -1}}, "golden.seed is to be 0 or more"),
        ({"golden": GOLDEN | {"tolerance": 1.0}}, "golden.tolerance is to be more than 0 and at most 0.01"),
        ({"metrics": [METRIC | {"tolerance": 0.06}]}, "metrics.tolerance is to be more than 0 and at most 0.05"),
        ({"files": {"a" * 101: {"bytes": 1, "sha256": "0" * 64}}}, "plain names of files"),
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
        ({"audit": dataclasses.asdict(AUDIT) | {"findings": [1]}}, r"audit.findings\[0\] is to be an object"),
        ({"audit": dataclasses.asdict(AUDIT)}, "audit is to be null but for an extractor"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(values, message, own):
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


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
def test_a_number_without_end_is_refused(number, own):
    """JSON reads 1e400 as infinity, within which any score would lie."""
    text = (own / "shapes_gated" / PRESET).read_text()
    tolerance = json.loads(text)["metrics"][0]["tolerance"]
    with pytest.raises(UserError, match="metrics.0..tolerance is to be a number below 1e.300|is no number"):
        Record.from_json(text.replace(f'"tolerance": {tolerance}', f'"tolerance": {number}', 1), PRESET)
