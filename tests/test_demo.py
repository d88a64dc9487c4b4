import dataclasses

import pytest
from records import quick_probes  # noqa: F401

from cdc_keras import demo


@pytest.mark.slow
@pytest.mark.usefixtures("few_test_images")
def test_the_demo_prints_its_table_and_pictures_that_are_there(tmp_path):
    small = {"train_limit": 128, "epochs": 1, "batch_size": 32, "steps_per_call": 1}
    text = demo.demo(
        tmp_path,
        dataclasses.replace(demo.EXTRACTOR, **small),
        dataclasses.replace(demo.PLAIN, **small, warmup_epochs=0.1),
    )
    assert "| backgrounds independent of the category |" in text and "| the category |" in text
    pictures = [line.strip() for line in text.splitlines() if line.endswith(".png")]
    assert any(p.endswith("strips.png") for p in pictures) and any("condition_swaps" in p for p in pictures)
    assert all((tmp_path / p).exists() for p in pictures)
