"""The card of a record."""

import dataclasses
import json

from records import change

from cdc_keras import zoo
from cdc_keras.release.card import card
from cdc_keras.release.verify import verify
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.findings import described
from cdc_keras.zoo.record import PRESET


def test_the_card_is_made_from_the_record(own):
    text = (own / "shapes_extractor" / "README.md").read_text()
    assert text == card(zoo.info("shapes_extractor"))
    assert "78.2" in text and "![curves](curves.png)" in text


def test_the_card_names_whom_the_licence_of_the_data_asks_to_name(own):
    record = zoo.info("shapes_extractor")
    assert "credit" not in card(record)
    of_photographs = dataclasses.replace(record, dataset=dataclasses.replace(record.dataset, name="tf_flowers"))
    assert "| credit | the photographs of tf_flowers" in card(of_photographs) and "CC BY 2.0" in card(of_photographs)


def test_record_and_card_show_the_audit_of_the_run(own, runs):
    record = zoo.info("shapes_extractor")
    found = json.loads((runs / "extractor" / "audit.json").read_text())
    assert {key: found[key] for key in dataclasses.asdict(record.audit)} == json.loads(record.to_json())["audit"]
    assert zoo.info("shapes_gated").audit is None
    text = (own / "shapes_extractor" / "README.md").read_text()
    assert "\n".join(described(record.audit)) in text and "accuracies of probes hold to 2.0%" in text
    assert "![audit](audit.png)" in text and "audit.png" in record.files


def test_a_stale_card_is_found(own):
    folder = own / "shapes_extractor"
    path = folder / "README.md"
    path.write_text(path.read_text().replace("78.2", "88.2"))
    files = json.loads((folder / PRESET).read_text())["files"]
    change(folder, files=files | {"README.md": dataclasses.asdict(zoo_files.file_of(path))})
    (problem,) = verify(["shapes_extractor"])
    assert "README.md is not the card" in problem
