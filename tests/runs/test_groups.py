"""Scores by group, beside a count by hand."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from commands import refusal, run_command
from PIL import Image
from tiny_runs import CLASSIFIER

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Split
from cdc_keras.data.pasted import PASTED
from cdc_keras.errors import UserError
from cdc_keras.runs.groups import Groups, groups_of, summary, table
from cdc_keras.runs.scoring import score
from cdc_keras.runs.training import train

RNG = np.random.default_rng(0)
CONFIG = RunConfig(task="classifier", dataset="shapes").resolved(8)
CLASSES, COUNT = 3, 600


@pytest.fixture(scope="module")
def split():
    factors = {
        "bird": np.array(["1", "0", "1"], object)[RNG.integers(3, size=COUNT)],
        "place": RNG.integers(2, size=COUNT),
        "hue": RNG.uniform(size=COUNT),
        "mask": np.zeros((COUNT, 8, 8), bool),
    }
    images = RNG.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    return Split(images, RNG.integers(CLASSES, size=COUNT).astype(np.int32), factors)


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(inputs)))


def test_groups_are_the_values_that_occur_in_order(split):
    groups = groups_of(split, ("bird", "place"))
    assert groups.values == (("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"))
    assert groups.names()[1] == "bird 0, place 1"
    for i, (bird, place) in enumerate(groups.values):
        expected = (split.factors["bird"] == bird) & (split.factors["place"] == int(place))
        assert np.array_equal(groups.of_images == i, expected)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_counts_of_each_group_are_those_by_hand(split, network, shuffled):
    config = dataclasses.replace(CONFIG, extractor="runs/x", gate_context="shuffled") if shuffled else CONFIG
    groups = groups_of(split, ("bird", "place"))
    found, alone = score(network, split, config, groups.of_images), score(network, split, config)
    predicted = network.predict(split.images / np.float32(127.5) - 1, verbose=0).argmax(-1)
    by_hand = np.zeros((4, CLASSES, CLASSES), int)
    np.add.at(by_hand, (groups.of_images, split.labels, predicted), 1)
    assert np.array_equal(found.of_groups, by_hand)
    assert np.array_equal(found.confusion, alone.confusion) and alone.of_groups is None
    assert found.metrics == pytest.approx(alone.metrics, abs=1e-6)


def test_the_average_is_weighted_as_in_training_and_the_worst_group_is_named():
    test = Groups(("place",), (("land",), ("sea",), ("sky",)), np.array([0, 0, 1, 1, 2]))
    training = Groups(("place",), (("land",), ("mud",), ("sea",)), np.array([0, 0, 0, 1, 2]))
    confusion = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [0, 0]]])
    found = summary(test, confusion, training)
    assert [x["top1"] for x in found["groups"]] == [0.5, 1.0, 0.0]
    assert [x["training_images"] for x in found["groups"]] == [3, 1, 0]
    assert found["worst_group"] == {"name": "place sky", "top1": 0.0}
    assert found["weighted_as_in_training"] == pytest.approx((3 * 0.5 + 1.0) / 4)
    head, rows = table(found)
    assert head == ("place", "images", "in training", "top-1")
    assert rows[1] == ("sea", 2, 1, "100.00%") and rows[-1] == ("weighted as in training", "", "", "62.50%")
    assert all(len(row) == len(head) for row in rows)
    assert "weighted_as_in_training" not in summary(test, confusion)


@pytest.mark.parametrize(
    "columns, sentence",
    [
        (("wing",), "there is no column 'wing' to make groups by; known of these images: bird, place, hue"),
        (("mask",), "there is no column 'mask'"),
        (("bird", "hue"), "hue has 600 values; groups are made by columns of at most 50"),
    ],
)
def test_a_column_that_makes_no_groups_is_refused(split, columns, sentence):
    with pytest.raises(UserError, match=sentence):
        groups_of(split, columns)


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """(run folder, data folder): a classifier of two birds whose backgrounds a labels.csv tells."""
    folder = tmp_path_factory.mktemp("birds")
    lines = ["file,place"]
    for part, count in (("train", 12), ("test", 5)):
        for label in ("landbird", "waterbird"):
            (folder / "data" / part / label).mkdir(parents=True)
            (folder / "data/masks" / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / part / label / f"{part}_{label}_{i}.png")
                mask = np.pad(np.full((12, 12), 255, np.uint8), 10)
                Image.fromarray(mask).save(folder / "data/masks" / part / label / f"{part}_{label}_{i}.png")
                lines.append(f"{part}_{label}_{i},{'water' if i % 3 else 'land'}")
    (folder / "data/labels.csv").write_text("\n".join(lines) + "\n")
    config = dataclasses.replace(
        CLASSIFIER, dataset="folder", data_dir=str(folder / "data"), image_size=32, train_limit=None, batch_size=2
    )
    return train(config, folder / "run", pictures=False).path


@pytest.mark.slow
def test_the_command_prints_and_writes_the_groups_and_so_does_the_report(birds, capsys):
    run_command("evaluate", f"--model={birds}", "--groups=place")
    printed = capsys.readouterr().out
    scores = json.loads((birds / "evaluation-test-last.json").read_text())
    found = scores["groups"]
    assert [(x["values"], x["images"]) for x in found["groups"]] == [(["land"], 4), (["water"], 6)]
    assert sum(x["images"] * x["top1"] for x in found["groups"]) == pytest.approx(10 * scores["top1"])
    assert "worst group" in printed and f"{found['worst_group']['top1']:.2%}" in printed
    head, *rows = csv.reader((birds / "confusion-test-last-groups.csv").open())
    assert head == ["place", "true \\ predicted", "landbird", "waterbird"]
    assert [row[:2] for row in rows] == [[p, b] for p in ("land", "water") for b in ("landbird", "waterbird")]
    assert sum(int(x) for row in rows for x in row[2:]) == 10
    run_command("report", f"--model={birds}", "--groups=place")
    page = (birds / "report.html").read_text()
    assert ">Groups</h2>" in page and "weighted as in training" in page


@pytest.mark.slow
def test_the_command_prints_the_scores_on_other_backgrounds_and_the_report_shows_them(birds, capsys):
    run_command("evaluate", f"--model={birds}", "--backgrounds")
    printed = capsys.readouterr().out
    found = json.loads((birds / "evaluation-test-last.json").read_text())
    top1 = found["backgrounds"]["top1"]
    assert tuple(top1) == PASTED and top1["original"] == found["top1"]
    assert found["backgrounds"]["gap"] == pytest.approx(top1["mixed_same"] - top1["mixed_rand"])
    assert all(f"{name:22s} {share:.2%}" in printed for name, share in top1.items())
    run_command("report", f"--model={birds}", "--backgrounds=true")
    page = (birds / "report.html").read_text()
    assert ">Backgrounds</h2>" in page and "gap, same - rand" in page and ">Localisation</h2>" in page


@pytest.mark.slow
def test_groups_that_are_not_there_are_answered_with_one_sentence(birds, tmp_path):
    assert "there is no column 'wing' to make groups by; known of these images: place" in refusal(
        "evaluate", f"--model={birds}", "--groups=wing"
    )
    assert "--groups" in refusal("evaluate", "--model=zoo:cifar100_resnet20", "--groups=wing")
    assert "--groups does nothing with --images" in refusal(
        "report", f"--model={birds}", "--groups=place", f"--images={birds}"
    )
