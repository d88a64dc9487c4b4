"""The audit as a whole: halves of the test images, the command, and what it refuses."""

import itertools
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from commands import refusal, run_command
from tiny_runs import EXTRACTOR

from cdc_keras import progress
from cdc_keras.audit import examination, probes, summary
from cdc_keras.audit.audit import _check_unseen, _learned_and_scored, folder, halves
from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.data.load import load_dataset
from cdc_keras.data.shapes import load_shapes, shapes
from cdc_keras.errors import UserError
from cdc_keras.runs.training import train
from cdc_keras.weights import sha256
from cdc_keras.zoo.findings import Finding

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_halves_share_no_image_and_hold_every_class():
    test = shapes(203, seed=0)
    numbered = Split(test.images, test.labels, {"row": np.arange(203)})
    dataset = Dataset("tiny", tuple("abcdefghij"), 32, numbered, numbered, numbered)
    first, second = halves(dataset, 10_000, seed=0)
    rows = [half.factors["row"] for half in (first, second)]
    assert sorted(np.concatenate(rows)) == list(range(203)) and len(second) == 101
    assert np.ptp(np.bincount(first.labels) - np.bincount(second.labels)) <= 2
    again, other = (halves(dataset, 10_000, seed=seed)[0].factors["row"] for seed in (0, 1))
    assert np.array_equal(again, rows[0]) and not np.array_equal(other, rows[0])
    assert sum(map(len, halves(dataset, 60, seed=0))) == 60
    with pytest.raises(UserError, match="tiny has 15 test images for 10 categories; two of each are needed"):
        halves(dataset, 15, seed=0)


def test_the_figure_is_a_png(tmp_path):
    findings = (
        Finding("category", "context", "linear", 0.2, 0.1, 0.3, 0.1),
        Finding("category", "gm", "linear", 0.5, 0.4, 0.6, 0.1),
        Finding("hue", "pixels", "conv", 0.9, 0.85, 0.95, 0.16),
    )
    summary.draw(findings, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(EXTRACTOR, folder / "cdcgm", pictures=False)
    return folder


def stub(*arrays, num_classes, **options):
    return np.arange(len(arrays[2])) % num_classes


def test_the_command_writes_table_figure_and_numbers(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(examination, "probe", stub)
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0)
    monkeypatch.setattr(progress, "DELAY", 0)
    run_command(
        "audit", f"--model={runs / 'cdcgm'}", f"--rivals=twin={runs / 'cdcgm'}", f"--out={tmp_path}", "--limit=80"
    )
    printed = capsys.readouterr()
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["probe_images"], found["scored_images"], found["dataset"]) == (80, 80, "shapes")
    seen = {(r["target"], r["features"], r["reader"]) for r in found["findings"]}
    expected = set(
        itertools.product(("category", "texture", "hue", "rotation"), ("context", "twin", "pixels"), probes.PROBES)
    )
    expected |= set(itertools.product(["category"], ("shuffled", "erased", "erased-before"), probes.PROBES))
    expected |= {("category", name, "discriminator") for name in ("context", "twin")}
    assert seen == expected
    twin = sha256(runs / "cdcgm" / "extractor.weights.h5")
    assert found["extractor_sha256"] == twin and found["rivals"] == {"twin": twin} and found["classifier"] is None
    assert found["limit"] == 80 and found["tolerance"]["probes"] == 0.02
    assert found["scenes"]["context"] == found["scenes"]["twin"]
    assert "Counterfactual MSE from T of twin: " in (tmp_path / "audit.md").read_text()
    assert set(found["reconstruction_mse"]) == {"context", "twin"} and set(found["erased"]) == {
        "erased",
        "erased-before",
    }
    text = (tmp_path / "audit.md").read_text()
    assert text in printed.out and "| the category | T of twin |" in text and "it needs a classifier" in text
    assert "audit: 60/60 probes, 00:00 left" in printed.err
    assert (tmp_path / "audit.png").is_file() and str(tmp_path) not in (tmp_path / "audit.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --model"),
        (["--model=nowhere"], "nowhere is no run folder"),
        (["--model=zoo:none"], "there is no record 'none' in the zoo"),
        (["--model={runs}/cdcgm", "--rivals=gm"], "--rivals are name=runs/..."),
        (["--model={runs}/cdcgm", "--rivals=pixels={runs}/cdcgm"], "a rival's name is of a-z"),
        (["--model={runs}/cdcgm", "--rivals=gm=nowhere"], "nowhere is no run folder"),
        (
            ["--model={runs}/cdcgm", "--classifier={runs}/cdcgm"],
            "is a run of task extractor; give one of task",
        ),
    ],
)
def test_bad_input_is_answered_with_one_sentence(arguments, sentence, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal("audit", *(argument.format(runs=runs) for argument in arguments))
    assert not (tmp_path / "nowhere").exists() and not (tmp_path / "audits").exists()


def test_the_audit_of_a_released_model_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder("zoo:cifar100", None) == pathlib.Path("audits/cifar100") and folder("zoo:cifar100", None).is_dir()
    assert folder("zoo:cifar100", "here") == pathlib.Path("here")


def test_a_network_that_may_know_the_test_images_is_refused():
    dataset = load_shapes(seed=0, train_size=20, validation_size=0, test_size=2000)
    ours = RunConfig(train_limit=20)

    def check(**changed):
        other = types.SimpleNamespace(config=RunConfig(train_limit=20, **changed), class_names=dataset.class_names)
        _check_unseen("it", other, ours, dataset, {"testing": dataset.test})

    check()
    check(validation_fraction=0.5)  # of the training images
    with pytest.raises(UserError, match="it was trained with image_size 128, the extractor with None"):
        check(image_size=128)
    for gated in ({}, {"task": "classifier", "extractor": "of another machine", "gate_init": "he"}):
        with pytest.raises(UserError, match="seed 0 and validation_fraction 0.1 holds out for testing, .* seed 1 and"):
            check(seed=1, **gated)


def test_probes_learn_from_validation_images_where_there_are_more_of_them(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(140, 8, 8, 3), dtype=np.uint8), np.arange(140) % 2
    train, test = slice(100), slice(100, 140)
    arrays = {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}
    np.savez(tmp_path / "tiny.npz", **arrays)

    def loaded(fraction):
        config = RunConfig(dataset="tiny", data_dir=str(tmp_path), validation_fraction=fraction)
        return config, load_dataset(config)

    config, dataset = loaded(0.2)  # 20 images, and 20 are half of the test images
    assert [len(part) for part in _learned_and_scored(dataset, config, 100, 0)] == [20, 20]
    config, dataset = loaded(0.3)
    learned, scored = _learned_and_scored(dataset, config, 100, 0)
    assert (rows(learned), rows(scored)) == (rows(dataset.validation), rows(dataset.test))
    assert [len(part) for part in _learned_and_scored(dataset, config, 10, 0)] == [10, 10]

    held_out = {"testing": dataset.test, "validation": dataset.validation}
    other = types.SimpleNamespace(class_names=dataset.class_names, config=loaded(0.3)[0])
    _check_unseen("it", other, config, dataset, held_out)
    other.config = loaded(0.2)[0]
    _check_unseen("it", other, config, dataset, {"testing": dataset.test})
    with pytest.raises(UserError, match="validation_fraction 0.3 holds out for validation, its own being seed 0 and"):
        _check_unseen("it", other, config, dataset, held_out)


def rows(split):
    """Returns the images of a split as a set of bytes."""
    return {image.tobytes() for image in split.images}


@pytest.mark.long
def test_the_audit_of_a_trained_run_reads_t(tmp_path):
    train(RunConfig(train_limit=1000, batch_size=50, epochs=2), tmp_path / "cdcgm")
    classifier = RunConfig(
        task="classifier", network="vgg13_slim", train_limit=500, batch_size=50, epochs=1, warmup_epochs=0.1
    )
    train(classifier, tmp_path / "classifier")
    arguments = [f"--model={tmp_path / 'cdcgm'}", f"--classifier={tmp_path / 'classifier'}"]
    done = subprocess.run(
        [sys.executable, "-m", "cdc_keras", "audit", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "cdcgm" / "audit.json").read_text())
    accuracy = {(r["target"], r["features"], r["reader"]): r["accuracy"] for r in found["findings"]}
    for kind in probes.PROBES:
        assert accuracy["category", "context", kind] > 0.2
        assert abs(accuracy["category", "shuffled", kind] - 0.1) < 0.04  # 1000 images: one sigma is 0.01
        assert accuracy["hue", "context", kind] > 0.4
    assert abs(accuracy["category", "erased", "linear"] - 0.1) < 0.04
    assert accuracy["category", "erased", "conv"] > 0.15
    assert ("condition", "context swap", "classifier") in accuracy
