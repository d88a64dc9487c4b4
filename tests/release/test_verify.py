"""Records are what they say: files, networks, and every number computed again."""

import dataclasses
import json
import os
import re

import pytest
from commands import refusal, run_command
from records import change, flip_a_byte, rewrite

from cdc_keras import zoo
from cdc_keras.audit import examination
from cdc_keras.audit.probes import probe
from cdc_keras.release.verify import verify
from cdc_keras.zoo.findings import READERS


def test_nothing_is_wrong_with_what_was_just_made(own):
    assert verify() == []


def test_numbers_of_the_packages_zoo_come_out_again(monkeypatch):
    """That all its files and networks are what they say, test_readme.py finds by README's command."""
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    quick = [name for name in zoo.names() if zoo.info(name).dataset.name == "shapes" and zoo.info(name).audit is None]
    assert verify(quick[:2]) == []


@pytest.mark.long
@pytest.mark.timeout(24 * 3600)
def test_every_number_on_the_packages_cards_comes_out_again(monkeypatch):
    """DATA_DIR is where the data are."""
    monkeypatch.delenv("CDC_KERAS_ZOO", raising=False)
    monkeypatch.setattr(examination, "probe", probe)
    assert verify(data_dir=os.environ.get("DATA_DIR")) == []


def test_a_zoo_at_a_url_is_verified(served):
    assert verify(["shapes_extractor"]) == []


def test_one_changed_byte_in_any_file_is_found(own):
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


def test_another_golden_output_or_number_of_parameters_is_found(own):
    folder = own / "shapes_extractor"
    golden = dataclasses.asdict(zoo.info("shapes_extractor").golden)
    change(folder, golden=golden | {"values": [v + 1e-3 for v in golden["values"]]}, parameters=5)
    problems = "\n".join(verify(["shapes_extractor"]))
    assert "preset.json says 5 parameters" in problems and "as the output 0 of the golden output" in problems


@pytest.mark.long
def test_an_audit_with_rival_and_judge_is_made_again(audited, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(audited[0]))
    known = zoo.info("shapes_audited").audit
    assert known.rivals == {"twin": zoo.info("shapes_extractor").weights.sha256}
    assert known.classifier == zoo.info("shapes_gated").weights.sha256
    assert {r.reader for r in known.findings} == set(READERS)
    assert verify(["shapes_audited"]) == []


def moved(record, by):
    """Returns the changes to a record that move a score, an accuracy and an erased share by `by` tolerances."""
    values = json.loads(record.to_json())
    metric, finding = values["metrics"][0], values["audit"]["findings"][0]
    metric["value"] += by * metric["tolerance"]
    metric["mean"] = metric["value"]
    # An interval around it, whose ends have moved by less than they may.
    accuracy = finding["accuracy"] = finding["accuracy"] + by * values["audit"]["tolerance"]["probes"]
    finding["low"], finding["high"] = min(finding["low"], accuracy), max(finding["high"], accuracy)
    values["audit"]["erased"]["erased"] += by * values["audit"]["tolerance"]["erased"]
    return {key: values[key] for key in ("metrics", "audit")}


def test_numbers_that_do_not_come_out_again_are_found(own):
    before = zoo.info("shapes_extractor")
    values = moved(before, by=1.1)
    rewrite(own / "shapes_extractor", **values)
    problems = verify(["shapes_extractor"])
    assert len(problems) == 3 and all(x.startswith("shapes_extractor: ") for x in problems)
    score, erased, finding = problems
    metric = values["metrics"][0]
    assert f"{metric['name']} on validation comes out as {before.metrics[0].value:.6g}, and preset.json" in score
    assert f"says {metric['value']:.6g} to within {metric['tolerance']:.2g}" in score
    assert f"audit.erased.erased comes out as {before.audit.erased['erased']:.6g}" in erased
    first = before.audit.findings[0]
    assert f"audit: {first.target} from {first.features} by {first.reader}, accuracy comes out as" in finding
    assert f"{first.accuracy:.6g}" in finding and "to within 0.02" in finding


def test_numbers_within_their_tolerance_pass(own):
    rewrite(own / "shapes_extractor", **moved(zoo.info("shapes_extractor"), by=0.9))
    assert verify(["shapes_extractor"]) == []


def test_a_finding_that_is_not_made_again_is_found(own):
    values = json.loads(zoo.info("shapes_extractor").to_json())["audit"]
    values["findings"][0] |= {"features": "another"}
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
def test_numbers_that_cannot_be_made_again_are_a_problem(values, sentence, own):
    if "config" in values:
        values = {"config": zoo.info("shapes_extractor").config | values["config"]}
    rewrite(own / "shapes_extractor", **values)
    (problem,) = verify(["shapes_extractor"])
    assert re.search(f"^shapes_extractor: scores and audit cannot be computed again: .*{sentence}", problem)
    assert verify(["shapes_extractor"], numbers=False) == []


def test_the_command_lists_the_records_and_fails_on_a_problem(own, capsys):
    run_command("zoo", "--numbers=false")
    listed = capsys.readouterr().out
    assert "2 records in" in listed and "shapes_gated" in listed and "were not computed again" in listed
    run_command("zoo", "--names=shapes_gated")
    told = capsys.readouterr()
    assert (
        "scores and audits of whole records, computed again" in told.out
        and "verifying shapes_gated: scores on" in told.err
    )
    assert "verifying shapes_extractor" not in told.err
    flip_a_byte(own / "shapes_gated" / "flags.txt")
    assert "flags.txt has sha256" in refusal("zoo")


def test_the_command_lists_an_empty_zoo(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    run_command("zoo")
    assert "0 records in" in capsys.readouterr().out
