import dataclasses
import json

import pytest
from tiny_runs import EXTRACTOR

from cdc_keras import demo
from cdc_keras.runs.training import train


@pytest.mark.slow
@pytest.mark.usefixtures("few_test_images")
def test_the_demo_prints_its_tables_and_pictures_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SCENES", 30)
    extractor = train(EXTRACTOR, tmp_path / "extractor", pictures=False)
    small = {"train_limit": 64, "epochs": 1, "batch_size": 8, "steps_per_call": 1, "network": "resnet8"}
    text = demo.demo(tmp_path / "demo", dataclasses.replace(demo.PLAIN, **small), str(extractor.path))
    assert "| backgrounds independent of the category |" in text and "| M |" in text
    pictures = [line.strip() for line in text.splitlines() if line.endswith(".png")]
    assert {"swaps.png", "attention.png", "strips.png"} <= {p.rpartition("/")[2] for p in pictures}
    assert all((tmp_path / p).exists() for p in pictures)
    numbers = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert set(numbers["accuracy"]) == {"plain", "gated", "control"} and 0 <= numbers["iou"]["M"]["own"] <= 1


def test_the_demo_trains_on_images_that_its_extractor_has_not_seen():
    assert demo.PLAIN.seed != 0
    assert {name: demo.ARMS[name].get("gate_context") for name in demo.ARMS} == {
        "plain": None,
        "gated": None,
        "control": "shuffled",
    }
