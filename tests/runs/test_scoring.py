"""One way of scoring: what it counts, and the order in which the shuffled control sees its images."""

import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Split
from cdc_keras.data.folder import load_folder
from cdc_keras.errors import UserError
from cdc_keras.networks.layers import ShuffledContext
from cdc_keras.runs import scoring
from cdc_keras.runs.evaluation import load_run, measure, most_confused
from cdc_keras.runs.scoring import score
from cdc_keras.runs.training import train
from cdc_keras.trainers.classifier import Classifier

CONFIG = RunConfig(task="classifier", image_size=32)
SHUFFLED = RunConfig(task="classifier", image_size=32, extractor="zoo:shapes", gate_context="shuffled")


def classifier(layers):
    model = Classifier(keras.Sequential([keras.Input((32, 32, 3)), *layers]))
    model.compile()
    return model


def says(logits):
    """A classifier that gives the image whose pixels are all i the i-th row of the logits."""
    table = keras.ops.convert_to_tensor(np.asarray(logits, "float32"))
    lookup = keras.layers.Lambda(
        lambda x: keras.ops.take(table, keras.ops.cast(keras.ops.round((x[:, 0, 0, 0] + 1) * 127.5), "int32"), axis=0),
        output_shape=(len(logits[0]),),
    )
    return classifier([lookup])


def images(count):
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 32, 32, 3)).copy()


def split_of(labels):
    return Split(images(len(labels)), np.asarray(labels, np.int32))


LOGITS = np.log([[0.5, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01], [0.01, 0.02, 0.03, 0.04, 0.1, 0.3, 0.5]])


def test_metrics_are_those_of_the_closed_form():
    scores = score(says(LOGITS), split_of([0, 0]), CONFIG)
    assert scores.metrics == pytest.approx({"top1": 0.5, "top5": 0.5, "loss": -(np.log(0.5) + np.log(0.01)) / 2})


def test_the_fifth_highest_logit_counts_for_top_5_and_the_sixth_does_not():
    assert score(says(LOGITS), split_of([4]), CONFIG).metrics["top5"] == 1
    assert score(says(LOGITS), split_of([5]), CONFIG).metrics["top5"] == 0


def test_of_equal_logits_the_first_is_the_higher_one():
    equal = says(np.zeros((1, 10)))
    tops = [score(equal, split_of([label]), CONFIG).metrics for label in range(10)]
    assert [t["top1"] for t in tops] == [1] + 9 * [0] and [t["top5"] for t in tops] == 5 * [1] + 5 * [0]


def test_large_logits_do_not_overflow():
    assert score(says(1e4 * np.eye(3)), split_of(range(3)), CONFIG).metrics["loss"] == 0


def test_logits_that_are_nan_are_no_hits_and_are_refused():
    scores = score(says(np.full((1, 10), np.nan)), split_of([0]), CONFIG)
    assert scores.metrics["top1"] == scores.metrics["top5"] == 0
    with pytest.raises(UserError, match="outputs are not finite"):
        scores.check_finite()


def test_rows_of_the_confusion_matrix_are_the_true_categories():
    scores = score(says(np.eye(3)[[1, 1, 2]]), split_of([0, 0, 2]), CONFIG)
    np.testing.assert_array_equal(scores.confusion, [[0, 2, 0], [0, 0, 0], [0, 0, 1]])
    assert most_confused(scores.confusion, "abc") == [{"true": "a", "predicted": "b", "count": 2}]


def test_a_second_pass_counts_anew_and_every_image_counts_once(monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 10)
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(37, 6)), rng.integers(6, size=37)
    model = says(logits)
    for _ in range(2):
        scores = score(model, split_of(labels), CONFIG)
        expected = np.zeros((6, 6), int)
        np.add.at(expected, (labels, logits.argmax(-1)), 1)
        np.testing.assert_array_equal(scores.confusion, expected)
        assert scores.metrics["top1"] == pytest.approx(np.trace(expected) / 37)
        assert scores.images_per_second > 0


def test_one_call_alone_has_no_speed():
    assert score(says(np.eye(3)), split_of(range(3)), CONFIG).images_per_second is None


CLASSES, EACH = 5, 40
FOLDER = {"dataset": "folder", "image_size": 32, "batch_size": 20, "validation_fraction": 0.0}


@pytest.fixture(scope="module")
def stored_class_by_class(tmp_path_factory):
    """A folder of test images; the colour of an image is its category."""
    path = tmp_path_factory.mktemp("folder")
    for part in ("train", "test"):
        for category in range(CLASSES):
            folder = path / part / f"class{category}"
            folder.mkdir(parents=True)
            for i in range(EACH):
                Image.new("RGB", (32, 32), (category * 50,) * 3).save(folder / f"{i:02d}.png")
    return path


def splits(path):
    held, stored = (
        load_folder(path, image_size=32, validation_fraction=0.0, seed=0, memory_limit=limit).test
        for limit in (2**30, 0)
    )
    assert held.in_memory and not stored.in_memory
    return held, stored


@pytest.mark.parametrize("kind", [0, 1], ids=["in memory", "on disk"])
def test_the_shuffled_control_hardly_ever_sees_the_context_of_its_own_category(kind, stored_class_by_class):
    """The classifier here reads the category from the context, so with that of another image it is at chance."""
    split = splits(stored_class_by_class)[kind]
    images = keras.Input((32, 32, 3))
    context = ShuffledContext()(keras.layers.AveragePooling2D(4)(images))
    gray = keras.layers.GlobalAveragePooling2D()(context)[:, :1]
    model = Classifier(keras.Model(images, -keras.ops.abs((gray + 1) * 127.5 - np.arange(CLASSES) * 50.0)))
    model.compile()
    own, shuffled = (score(model, split, config).metrics["top1"] for config in (CONFIG, SHUFFLED))
    assert own > 0.95  # in stored order, the image before is of the same category
    assert shuffled < 1 / CLASSES + 0.1  # of 200 images three standard deviations are 0.085
    assert score(model, split, SHUFFLED).metrics["top1"] == shuffled


def test_the_shuffled_control_is_scored_in_training_and_in_evaluation_by_one_order(tmp_path, stored_class_by_class):
    """A whole run: its last row on test and its evaluation agree, though the folder is stored class by class."""
    extractor = RunConfig(**FOLDER, data_dir=str(stored_class_by_class), context="gm", epochs=1)
    train(extractor, tmp_path / "extractor", pictures=False)
    config = RunConfig(
        **FOLDER,
        data_dir=str(stored_class_by_class),
        task="classifier",
        network="resnet8",
        extractor=str(tmp_path / "extractor"),
        gate_context="shuffled",
        gate_init="he",
        epochs=3,
        warmup_epochs=0.1,
        learning_rate_drops=(),
        test_every_epoch=True,
    )
    run = train(config, tmp_path / "run", pictures=False)
    scores = measure(run.path).scores
    for name in ("loss", "top1", "top5"):
        assert run.rows()[-1][f"test_{name}"] == pytest.approx(scores[name], rel=1e-4)
    trainer, dataset, _ = load_run(run)
    stored = score(trainer, dataset.test, dataclasses.replace(config, image_size=32, gate_context="own"))
    assert stored.metrics["loss"] != pytest.approx(scores["loss"], rel=1e-3)  # the order matters
