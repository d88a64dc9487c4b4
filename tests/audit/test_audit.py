import itertools
import json
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from commands import refusal, run_command

from cdc_keras.audit import decoding, examination, probes, report
from cdc_keras.audit.audit import _check_same_test, halves
from cdc_keras.audit.erasure import leace
from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.data.shapes import load_shapes, shapes
from cdc_keras.errors import UserError
from cdc_keras.networks import autoencoder
from cdc_keras.runs.training import train
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.weights import sha256
from cdc_keras.zoo.findings import Audit, Reading, table

ROOT = pathlib.Path(__file__).resolve().parents[2]


def features(labels, seed, signal):
    """Noise of 4 channels with `signal` added to the channel of the label."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6, 6, 4)).astype(np.float32)
    return noise + signal * np.eye(4, dtype=np.float32)[labels][:, None, None]


def labels(count, seed):
    return np.random.default_rng(seed).integers(4, size=count)


def score(kind, signal, train_labels=None, **changed):
    train, test = labels(512, 0), labels(200, 1)
    given = train if train_labels is None else train_labels
    arguments = {"kind": kind, "num_classes": 4, "seed": 0} | changed
    return np.mean(probes.probe(features(train, 2, signal), given, features(test, 3, signal), **arguments) == test)


def read(kind, train, train_labels, test, test_labels, num_classes=2):
    found = probes.probe(train, train_labels, test, kind=kind, num_classes=num_classes, seed=0)
    return np.mean(found == test_labels)


@pytest.mark.parametrize("kind", probes.PROBES)
def test_a_probe_reads_what_is_there_and_nothing_by_shuffled_labels(kind):
    assert score(kind, 1.0) > 0.9
    assert abs(score(kind, 1.0, train_labels=labels(512, 9)) - 0.25) < 0.15  # 200 test images: one sigma is 0.03


def test_only_the_conv_probe_reads_texture_that_averages_out():
    def stripes(y, seed):
        image = np.random.default_rng(seed).normal(size=(len(y), 8, 8, 1)).astype(np.float32)
        lines = np.where(np.arange(8) % 2, 1.0, -1.0)
        pattern = np.where(y[:, None, None] == 1, lines[:, None], lines[None, :])
        return image + 1.5 * pattern[..., None].astype(np.float32)

    train, test = labels(512, 0) % 2, labels(200, 1) % 2
    scores = {kind: read(kind, stripes(train, 2), train, stripes(test, 3), test) for kind in ("linear", "conv")}
    assert scores["conv"] > 0.9 and scores["linear"] < 0.65


def test_what_lies_in_products_alone_is_read_by_k_nn_and_mlp_and_not_by_a_linear_probe():
    def xor(count, seed):
        rng = np.random.default_rng(seed)
        signs = rng.choice([-1.0, 1.0], size=(count, 1, 1, 2))
        return (signs + 0.2 * rng.normal(size=signs.shape)).astype(np.float32), (signs.prod(axis=-1) > 0).ravel() * 1

    (train, train_labels), (test, test_labels) = xor(512, 0), xor(200, 1)
    scores = {kind: read(kind, train, train_labels, test, test_labels) for kind in ("linear", "knn", "mlp")}
    assert scores["knn"] > 0.95 and scores["mlp"] > 0.95 and abs(scores["linear"] - 0.5) < 0.15


def test_linear_erasure_blinds_the_linear_probe_but_not_one_that_reads_variances():
    def signal(y, seed):  # the category moves channel 0 and widens channel 1
        noise = np.random.default_rng(seed).normal(size=(len(y), 4, 4, 2))
        y = y[:, None, None]
        return np.stack([noise[..., 0] + 2 * y, noise[..., 1] * (1 + 2 * y)], axis=-1).astype(np.float32)

    train, test = labels(800, 0) % 2, labels(200, 1) % 2
    x, z = signal(train, 2), signal(test, 3)
    eraser = leace(x, train, 2)
    assert read("linear", x, train, z, test) > 0.95
    assert abs(read("linear", eraser(x), train, eraser(z), test) - 0.5) < 0.15
    assert read("conv", eraser(x), train, eraser(z), test) > 0.9


def test_a_probe_does_not_depend_on_the_scale_of_a_channel():
    train, test = labels(512, 0), labels(200, 1)
    x, z = features(train, 2, 1.0), features(test, 3, 1.0)
    factors = np.float32([1e-3, 1, 1e3, 10])
    scaled = read("linear", x * factors + 5, train, z * factors + 5, test, 4)
    assert abs(scaled - read("linear", x, train, z, test, 4)) <= 0.01


def test_dead_channels_stay_finite():
    train, test = probes.standardized(np.ones((3, 2, 2, 1)), np.full((3, 2, 2, 1), 2.0))
    assert not train.any() and np.array_equal(test, np.ones((3, 2, 2, 1)))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_unit_of_a_probe_dies_where_all_inputs_move_together(kind):
    network = probes._network(kind, (8, 8, 16), 4, seed=0)
    hidden = keras.Model(network.input, [x.output for x in network.layers if isinstance(x, keras.layers.Activation)])
    moved = features(labels(64, 0), 1, 0.0)[..., :1].repeat(16, axis=-1).repeat(2, axis=1)[:, :8].repeat(2, axis=2)
    for outputs in keras.tree.flatten(hidden(moved[:, :, :8] + 30.0, training=True)):
        assert np.all(np.any(outputs.numpy() > 0, axis=tuple(range(outputs.ndim - 1))))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_same_seed_gives_the_same_answers(kind, monkeypatch):
    monkeypatch.setitem(probes.PROBES, kind, probes.PROBES[kind] | {"epochs": 1})
    assert score(kind, 0.1) == score(kind, 0.1)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of linear, knn, mlp, conv, not 'deep'"):
        score("deep", 1.0)


@pytest.mark.parametrize("neighbours", [1, 5, 10_000])
def test_the_nearest_neighbours_are_those_of_a_plain_loop(neighbours, monkeypatch):
    monkeypatch.setattr(probes, "BLOCK", 7)
    rng = np.random.default_rng(0)
    train, test, given = rng.normal(size=(60, 8)), rng.normal(size=(25, 8)), rng.integers(3, size=60)
    expected = []
    for x in test:
        cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        nearest = sorted(range(60), key=lambda i: -cosines[i])[:neighbours]
        votes = [(sum(given[i] == c for i in nearest), sum(1 + cosines[i] for i in nearest if given[i] == c))
                 for c in range(3)]  # fmt: skip
        expected.append(max(range(3), key=lambda c: votes[c]))
    assert probes.nearest_neighbours(train, given, test, 3, neighbours).tolist() == expected


def test_contexts_are_the_extractors_output_whatever_the_batch_size():
    extractor = autoencoder.encoder(32)
    images = np.random.default_rng(0).integers(256, size=(7, 32, 32, 3), dtype=np.uint8)
    result = decoding.contexts(extractor, images, batch_size=3)
    assert (result.shape, result.dtype) == ((7, 8, 8, 64), np.float32)
    direct = keras.ops.convert_to_numpy(extractor(images / np.float32(127.5) - 1, training=False))
    np.testing.assert_allclose(result, direct, atol=1e-4)  # float32 through eight convolutions


def test_small_pixels_are_means_over_squares():
    images = np.random.default_rng(0).integers(256, size=(2, 70, 70, 3), dtype=np.uint8)
    pixels = probes.small_pixels(images)
    assert pixels.shape == (2, 35, 35, 3)
    np.testing.assert_allclose(pixels[1, 3, 4], images[1, 6:8, 8:10].mean(axis=(0, 1)) / 127.5 - 1, atol=1e-6)


def test_a_real_factor_becomes_six_equally_full_classes():
    hue = np.random.default_rng(0).random(600).astype(np.float32)
    train, test, count = examination._classes(hue, np.float32([0.0, 0.999]))
    assert count == 6 and np.array_equal(np.bincount(train), [100] * 6) and test.tolist() == [0, 5]


def test_the_halves_share_no_image_and_have_every_class_in_proportion():
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


def test_another_label_is_never_the_own_and_every_other_is_as_likely():
    y = np.repeat(np.arange(4), 3000)
    others = decoding.other_labels(y, 4, seed=0)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (y, others), 1)
    assert not counts.diagonal().any() and counts[~np.eye(4, dtype=bool)].min() > 900


@pytest.mark.parametrize("obeys", [True, False])
def test_the_swap_is_read_off_a_decoder_that_draws_its_condition_or_only_t(obeys, monkeypatch):
    """Images of one gray value per class; T is the image; the classifier reads the gray value."""
    monkeypatch.setattr(examination, "probe", lambda *a, **k: np.zeros(len(a[2]), int))
    gray = lambda y: np.repeat(np.asarray(y), 4 * 4 * 3).reshape(-1, 4, 4, 3)  # noqa: E731
    parts = [Split((50 * gray(y)).astype(np.uint8), y) for y in (np.arange(40) % 4, np.arange(60) % 4)]

    def draw(inputs):
        context, condition = inputs
        return 50 * gray(condition.argmax(-1)) / 127.5 - 1 if obeys else context

    predicts = lambda function: types.SimpleNamespace(predict_on_batch=function)  # noqa: E731
    model = types.SimpleNamespace(
        decoder=predicts(draw),
        adversarial=True,
        discriminate=lambda t: [np.eye(4)[np.zeros(len(t), int)]],
        conditional=True,
        condition=lambda y: np.eye(4)[y],
    )
    classifier = predicts(lambda x: np.eye(4)[np.round((np.asarray(x)[:, 0, 0, 0] + 1) * 127.5 / 50).astype(int)])
    subject = types.SimpleNamespace(network=predicts(np.asarray), disentangler=model)
    examined = examination.Examination(*parts, parts[0], 4, seed=0)
    examined.run({"context": subject}, classifier)
    found = {(r.target, r.source, r.reader): r.accuracy for r in examined.readings}
    assert found["category", "images", "classifier"] == 1
    assert found["category", "context reconstruction", "classifier"] == 1
    assert found["condition", "context swap", "classifier"] == obeys
    assert found["category", "context swap", "classifier"] == (not obeys)
    assert found["category", "context", "discriminator"] == 0.25
    assert examined.errors["context"]["mean"] == pytest.approx(0, abs=1e-9)


def test_a_reconstruction_error_is_the_mean_square_over_an_image():
    model = Disentangler(32, 10)
    images, y = shapes(5, seed=0).images, np.arange(5)
    context = decoding.contexts(model.encoder, images)
    direct = keras.ops.convert_to_numpy(model(images / np.float32(127.5) - 1, y))
    expected = np.mean((direct - (images / 127.5 - 1)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(decoding.reconstruction_errors(model, images, context, y), expected, rtol=1e-4)


def test_chance_is_the_share_of_what_is_most_frequent_among_the_probes_images():
    part = lambda y: Split(np.zeros((len(y), 4, 4, 3), np.uint8), np.int32(y))  # noqa: E731
    examined = examination.Examination(part([1, 1, 0]), part([0, 0, 0, 1]), part([0, 1]), 2, seed=0)
    examined._add("category", "pixels", "linear", np.int32([0, 0, 0, 0]))
    (reading,) = examined.readings
    assert (reading.chance, reading.accuracy) == (0.25, 0.75)


READINGS = (
    Reading("category", "context", "linear", 0.2, 0.1, 0.3, 0.1),
    Reading("category", "context", "discriminator", 0.14, 0.12, 0.15, 0.1),
    Reading("category", "gm", "linear", 0.5, 0.4, 0.6, 0.1),
    Reading("condition", "gm swap", "classifier", 0.5, 0.4, 0.6, 0.1),
    Reading("hue", "pixels", "linear", 0.9, 0.85, 0.95, 0.16),
)


def test_the_table_has_a_row_for_each_source_and_a_column_for_each_reader():
    assert table(READINGS)[:4] == [
        "| read | from | linear | its own D | the classifier | chance |",
        "|---|---|---|---|---|---|",
        "| the category | T | 20.0% (10.0 to 30.0) | 14.0% (12.0 to 15.0) |  | 10.0% |",
        "| the category | T of gm | 50.0% (40.0 to 60.0) |  |  | 10.0% |",
    ]
    assert table(READINGS)[4].startswith("| the condition swapped in | T of gm, decoded under another category |")


def test_the_figure_is_a_png(tmp_path):
    report.draw(READINGS, tmp_path / "audit.png")
    assert (tmp_path / "audit.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": 0.05}, "audit.accuracy is to be within its interval"),
        ({"high": 1.5}, "audit.accuracy"),
        ({"chance": -1.0}, "audit.chance is to be in"),
        ({"reader": "eye"}, "audit.reader is to be one of linear"),
        ({"source": "a | b"}, "audit.source is to be a plain word"),
        ({"target": "<b>"}, "audit.target is to be a plain word"),
    ],
)
def test_a_reading_that_can_not_be_is_refused(values, message):
    good = {"target": "hue", "source": "gm swap", "reader": "knn", "accuracy": 0.2, "low": 0.1, "high": 0.3}
    with pytest.raises(UserError, match=message):
        Reading(**{**good, "chance": 0.1, **values})
    with pytest.raises(UserError, match="audit.erased.context"):
        Audit(0, 9, {}, None, 1, 1, {"context": -1.0}, ())
    with pytest.raises(UserError, match="audit.rivals.gm is to be a sha256"):
        Audit(0, 9, {"gm": "x"}, None, 1, 1, {}, ())


EXTRACTOR = RunConfig(train_limit=64, batch_size=32, epochs=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train(EXTRACTOR, folder / "cdcgm")
    return folder


def stub(*arrays, num_classes, **options):
    return np.arange(len(arrays[2])) % num_classes


def test_the_command_writes_table_figure_and_numbers(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(examination, "probe", stub)
    run_command(
        "audit", f"--model={runs / 'cdcgm'}", f"--rivals=twin={runs / 'cdcgm'}", f"--out={tmp_path}", "--limit=80"
    )
    printed = capsys.readouterr()
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["probe_images"], found["scored_images"], found["dataset"]) == (40, 40, "shapes")
    seen = {(r["target"], r["source"], r["reader"]) for r in found["readings"]}
    expected = set(itertools.product(("category", "texture", "hue"), ("context", "twin", "pixels"), probes.PROBES))
    expected |= set(itertools.product(["category"], ("shuffled", "erased", "erased-before"), probes.PROBES))
    expected |= {("category", name, "discriminator") for name in ("context", "twin")}
    assert seen == expected
    twin = sha256(runs / "cdcgm" / "extractor.weights.h5")
    assert found["extractor_sha256"] == twin and found["rivals"] == {"twin": twin} and found["classifier"] is None
    assert found["limit"] == 80 and found["tolerance"]["probes"] == 0.02
    assert set(found["reconstruction_mse"]) == {"context", "twin"} and set(found["erased"]) == {
        "erased",
        "erased-before",
    }
    text = (tmp_path / "audit.md").read_text()
    assert text in printed.out and "| the category | T of twin |" in text and "it needs a classifier" in text
    assert "probe 48/48" in printed.err and "left" in printed.err
    assert (tmp_path / "audit.png").is_file() and str(tmp_path) not in (tmp_path / "audit.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --model"),
        (["--model=nowhere"], "nowhere is no run folder"),
        (["--model=zoo:none"], "say where with --out"),
        (["--model={runs}/cdcgm", "--rivals=gm"], "--rivals are name=runs/..."),
        (["--model={runs}/cdcgm", "--rivals=pixels={runs}/cdcgm"], "a rival's name is of a-z"),
        (["--model={runs}/cdcgm", "--rivals=gm=nowhere"], "nowhere is no run folder"),
        (
            ["--model={runs}/cdcgm", "--classifier={runs}/cdcgm"],
            "is a run of task extractor; give one of task",
        ),
        (["--model={runs}/cdcgm", "--limit=15"], "two of each are needed"),
    ],
)
def test_bad_input_is_answered_with_one_sentence(arguments, sentence, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal("audit", *(argument.format(runs=runs) for argument in arguments))
    assert not (tmp_path / "nowhere").exists()


def test_a_network_that_may_have_seen_the_test_images_is_refused():
    dataset = load_shapes(seed=0, train_size=20, validation_size=0, test_size=30)
    subject = types.SimpleNamespace(config=RunConfig(train_limit=20), classes=dataset.class_names)
    check = lambda **changed: _check_same_test(  # noqa: E731
        "it",
        types.SimpleNamespace(config=RunConfig(train_limit=20, **changed), classes=dataset.class_names),
        subject,
        dataset,
        subject.config,
    )
    check()
    with pytest.raises(UserError, match="it was trained with image_size 128, the extractor with None"):
        check(image_size=128)
    for gated in ({}, {"task": "classifier", "extractor": "of another machine", "gate_init": "paper"}):
        with pytest.raises(UserError, match="seed 0 holds out for testing, its own seed being 1"):
            check(seed=1, **gated)


@pytest.mark.long
def test_the_whole_audit_of_a_trained_run_reads_t_and_reads_chance_by_shuffled_labels(tmp_path):
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
    accuracy = {(r["target"], r["source"], r["reader"]): r["accuracy"] for r in found["readings"]}
    for kind in probes.PROBES:
        assert accuracy["category", "context", kind] > 0.2
        assert abs(accuracy["category", "shuffled", kind] - 0.1) < 0.04  # 1000 images: one sigma is 0.01
        assert accuracy["hue", "context", kind] > 0.4
    assert abs(accuracy["category", "erased", "linear"] - 0.1) < 0.04
    assert accuracy["category", "erased", "conv"] > 0.15
    assert ("condition", "context swap", "classifier") in accuracy
