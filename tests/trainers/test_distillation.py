"""Attention transfer, the classifier's features as a context, and gate sites by resolution: formulas and whole runs."""

import contextlib
import dataclasses
import io
import re
import shutil
import types

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers
from tiny_runs import CLASSIFIER

from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.networks import graph, registry
from cdc_keras.runs.evaluation import load_run, measure
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.stopping import StopOnSignal
from cdc_keras.runs.trained import load
from cdc_keras.runs.training import train
from cdc_keras.trainers.build import classifier
from cdc_keras.trainers.distillation import AttentionTransfer, attention_map, pair_by_resolution, transfer_loss
from cdc_keras.trainers.optimizers import recipe
from cdc_keras.weights import sha256

pytestmark = pytest.mark.usefixtures("few_test_images")
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (12, 32, 32, 3)).astype("float32")
LABELS = RNG.integers(0, 10, 12).astype("int32")
PAIRS = {  # of resnet8 and wrn10_1
    "32x32": ("stage1_block1_act", "stage1_block1_add"),
    "16x16": ("stage2_block1_act", "stage2_block1_add"),
    "8x8": ("stage3_block1_act", "stage3_block1_add"),
}


def build(name, size=32, **arguments):
    network = registry.build(name, size, num_classes=10, **arguments)
    reference.randomise(network.variables)
    return network


def at(features):
    """The attention map, in NumPy: mean over channels of the squares, one row an image, each of length 1."""
    energy = (features.astype("float64") ** 2).mean(axis=3).reshape(len(features), -1)
    return energy / np.sqrt((energy**2).sum(axis=1, keepdims=True))


def pairs_of(student, teacher):
    return pair_by_resolution(student, registry.groups(student), teacher, registry.groups(teacher))


def assert_close(got, expected):
    # float32 against float64, or two orders of float32 sums: some 2**-24 of the largest term of every sum
    error = max(abs(np.asarray(a) - b).max() for a, b in zip(got, expected, strict=True))
    error /= max(abs(np.asarray(b)).max() for b in expected)
    assert error <= 1e-6, f"largest error {error:.1e} of the largest value"


@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (2, 16, 16, 64), (4, 1, 1, 3)], ids=str)
def test_the_attention_map_is_the_mean_square_over_channels_normalised_for_each_image(shape):
    features = RNG.normal(size=shape).astype("float32") * np.arange(1, shape[0] + 1)[:, None, None, None]
    assert_close([attention_map(features.astype("float32"))], [at(features)])


def test_the_transfer_loss_is_the_mean_squared_difference_of_the_maps():
    student, teacher = (RNG.normal(size=(3, 8, 8, c)).astype("float32") for c in (16, 40))
    got = transfer_loss(attention_map(student), attention_map(teacher))
    assert_close([got], [((at(student) - at(teacher)) ** 2).mean()])


def test_a_map_of_zeros_has_a_finite_value_and_a_finite_gradient():
    dead, alive = np.zeros((1, 4, 4, 8), "float32"), RNG.normal(size=(1, 4, 4, 8)).astype("float32")
    features = tf.constant(np.concatenate([dead, alive]))
    target = attention_map(RNG.normal(size=(2, 4, 4, 8)).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(features)
        maps = attention_map(features)
        loss = transfer_loss(maps, target)
    gradient = tape.gradient(loss, features).numpy()
    np.testing.assert_array_equal(maps[0], np.zeros(16))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert np.any(gradient[1])  # the other image still learns


def test_groups_are_paired_by_equal_resolution():
    student, teacher = build("resnet8"), build("wrn10_1")
    assert pairs_of(student, teacher) == PAIRS
    # VGG's groups end at 32, 16, 8, 4 and 2 px: the last two have no partner
    vgg = pairs_of(build("vgg13_slim"), teacher)
    assert vgg == {size: (f"block{i}_conv2_act", PAIRS[size][1]) for i, size in enumerate(PAIRS, 1)}


def test_of_two_groups_at_one_resolution_the_deeper_one_counts():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="shallow")(images)
    network = keras.Model(images, layers.Conv2D(4, 3, padding="same", name="deep")(x))
    assert pair_by_resolution(network, ["shallow", "deep"], network, ["shallow"]) == {"8x8": ("deep", "shallow")}


@pytest.mark.parametrize(
    ("name", "after_relu", "expected"),
    [
        # before activation: the gate's own output ends the group
        ("wrn10_1", False, {"32x32": "stage1_block1_add", "16x16": "gate_stage2_block1_add_out"}),
        # else the ReLU after the gate does
        ("resnet8", False, {"32x32": "stage1_block1_act", "16x16": "stage2_block1_act"}),
        ("vgg13_slim", False, {"32x32": "block1_conv2_act", "16x16": "block2_conv2_act"}),
        # unless that is what is gated
        ("resnet8", True, {"32x32": "stage1_block1_act", "16x16": "gate_stage2_block1_act_out"}),
    ],
)
def test_of_a_gated_group_what_the_gate_gives_is_taken(name, after_relu, expected):
    plain = build(name)
    sites = registry.sites(plain, 16)
    student = attach(plain, None, sites, attention=False, after_relu=after_relu)
    pairs = pairs_of(student, build("wrn10_1"))
    assert {size: pairs[size][0] for size in expected} == expected
    # the features depend on the gate
    ends = graph.activations(student, [pairs["16x16"][0]])
    before = ends([IMAGES[:2]], training=False)[pairs["16x16"][0]].numpy()
    kernel = next(v for v in student.variables if v.path.startswith("gate_") and "_r_conv3/kernel" in v.path)
    kernel.assign(kernel + 0.1)
    assert np.any(before != ends([IMAGES[:2]], training=False)[pairs["16x16"][0]].numpy())


def test_a_teacher_without_a_common_resolution_is_an_error_naming_both():
    message = "student's groups end at 32x32, 16x16, 8x8, the teacher's at 20x20, 10x10, 5x5"
    with pytest.raises(ValueError, match=f"no resolution in common: the {message}"):
        pairs_of(build("resnet8"), build("wrn10_1", 20))


def transfer_model(weight=1e3, learning_rate=0.1):
    """(an `AttentionTransfer` of a ResNet-8 from a WRN-10-1, the teacher), compiled with the `wrn` recipe."""
    student, teacher = build("resnet8"), build("wrn10_1")
    reference.randomise(teacher.variables, seed=1)
    model = AttentionTransfer(student, PAIRS, teacher, weight)
    model.compile(recipe("wrn", learning_rate))
    return model, teacher


def values(variables):
    return [v.numpy().copy() for v in variables]


def ends_of(network, names):
    """`network` with the outputs [logits, the output of each layer of `names`], by Keras' own means."""
    return keras.Model(network.input, [network.output, *(network.get_layer(name).output for name in names)])


def losses_by_hand(logits, students, teachers):
    """[cross-entropy, transfer of each pair] from the formulas, in TensorFlow."""

    def attention(x):
        energy = tf.reshape(tf.reduce_mean(x * x, axis=3), (len(x), -1))
        return energy / tf.sqrt(tf.reduce_sum(energy * energy, axis=1, keepdims=True))

    entropy = -tf.reduce_mean(tf.gather(tf.nn.log_softmax(logits), LABELS, axis=1, batch_dims=1))
    pairs = zip(students, teachers, strict=True)
    return [entropy, *(tf.reduce_mean((attention(x) - attention(y)) ** 2) for x, y in pairs)]


def test_one_step_is_that_of_the_formulas():
    model, teacher = transfer_model()
    student = transfer_model()[0].network  # of the same weights
    _, *targets = ends_of(teacher, [theirs for _, theirs in PAIRS.values()])([IMAGES], training=False)
    variables = student.trainable_variables
    before = values(variables)
    with tf.GradientTape() as tape:
        logits, *features = ends_of(student, [ours for ours, _ in PAIRS.values()])([IMAGES], training=True)
        entropy, *transfers = losses_by_hand(logits, features, targets)
        total = entropy + 1000 * sum(transfers)
    gradients = [g.numpy().astype("float64") for g in tape.gradient(total, [v.value for v in variables])]
    assert 1000 * sum(transfers) > 0.1 * entropy  # or the step would hardly show the transfer
    # the first step of SGD with Nesterov momentum: 1 + 0.9 times the gradient and its decay
    expected = [w - 0.1 * 1.9 * (g + 5e-4 * w) for w, g in zip(before, gradients, strict=True)]

    logs = model.train_step((IMAGES, LABELS))
    assert_close(values(model.network.trainable_variables), expected)
    assert_close([logs["loss"], logs["cross_entropy"]], [float(total), float(entropy)])
    assert_close([logs[f"transfer_{size}"] for size in PAIRS], [float(x) for x in transfers])
    assert_close(values(model.network.non_trainable_variables), values(student.non_trainable_variables))


def test_attention_is_transferred_under_mixed_labels():
    shares = np.random.default_rng(0).dirichlet(np.ones(10), size=len(LABELS)).astype("float32")
    model, _ = transfer_model()
    logits = model.network(IMAGES, training=True)
    model = transfer_model()[0]
    logs = model.train_step((IMAGES, shares))
    expected = -np.mean(np.sum(shares * tf.nn.log_softmax(logits).numpy(), axis=1))
    assert_close([logs["cross_entropy"]], [expected])
    assert_close([logs["top1"]], [np.mean(np.argmax(logits, axis=1) == shares.argmax(axis=1))])


def test_the_teacher_stays_as_it_was_to_the_bit_while_the_student_moves():
    model, teacher = transfer_model(learning_rate=1e-3)
    teacher_before, student_before = values(teacher.variables), values(model.network.variables)
    model.fit(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4), epochs=2, shuffle=False, verbose=0)
    for before, after in zip(teacher_before, values(teacher.variables), strict=True):
        np.testing.assert_array_equal(before, after)
    for v, before in zip(model.network.variables, student_before, strict=True):
        assert np.any(v.numpy() != before), v.path  # weights and batch-norm statistics alike


def test_the_teacher_is_no_part_of_the_model():
    model, teacher = transfer_model()
    inside = {id(v) for v in (*model.variables, *model.optimizer.variables)}
    assert not inside & {id(v) for v in teacher.variables}
    assert [id(v) for v in model.trainable_variables] == [id(v) for v in model.network.trainable_variables]


def test_the_teacher_runs_in_inference_mode():
    model, teacher = transfer_model()
    got = model.teacher_maps(IMAGES)[1]
    expected = ends_of(teacher, [theirs for _, theirs in PAIRS.values()])([IMAGES], training=False)[1:]
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_total_is_the_cross_entropy_and_the_weighted_sum_of_the_transfers():
    model, _ = transfer_model(weight=7.0, learning_rate=1e-3)
    logs = model.fit(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(5), shuffle=False, verbose=0).history
    logs = {name: x[-1] for name, x in logs.items()}  # batches of 5, 5 and 2: means over images
    transfers = [logs.pop(f"transfer_{size}") for size in PAIRS]
    assert min(transfers) > 0
    assert logs["loss"] == pytest.approx(logs["cross_entropy"] + 7 * sum(transfers), rel=1e-6)
    assert set(logs) == {"loss", "cross_entropy", "top1", "top5"}


# Whole runs.

TEACHER = dataclasses.replace(CLASSIFIER, network="wrn10_1", epochs=2)
STUDENT = dataclasses.replace(TEACHER, network="resnet8")
DM = dataclasses.replace(TEACHER, task="extractor", context="dm", epochs=1)


def trained(config, folder):
    """(the run, what it printed)."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        run = train(config, folder, pictures=False)
    return run, printed.getvalue()


def copy_of(run, folder):
    return RunFolder(shutil.copytree(run.path, folder))


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    return train(TEACHER, tmp_path_factory.mktemp("teacher") / "run", pictures=False)


@pytest.fixture(scope="module")
def transferred(teacher_run, tmp_path_factory):
    """A student's run that was stopped at step 6 of 8 and gone on with, and a copy of it as it was when stopped."""
    folder = tmp_path_factory.mktemp("student")
    teacher = copy_of(teacher_run, folder / "teacher")
    config = dataclasses.replace(STUDENT, teacher=str(teacher.path))
    calls = []

    def stop_at_step_six(self, batch, logs=None):
        calls.append(batch)
        self.model.stop_training = self.signalled = len(calls) == 6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnSignal, "on_train_batch_end", stop_at_step_six)
        run, first = trained(config, folder / "run")
        stopped = copy_of(run, folder / "stopped")
        run, second = trained(config, folder / "run")
    return types.SimpleNamespace(run=run, stopped=stopped, config=config, teacher=teacher, first=first, second=second)


@pytest.fixture(scope="module")
def dm_run(tmp_path_factory):
    return train(DM, tmp_path_factory.mktemp("dm") / "run", pictures=False)


@pytest.mark.slow
def test_the_teacher_is_scored_printed_and_recorded_once(transferred, teacher_run):
    known = transferred.run.notes()["teacher"]
    assert known["sha256"] == sha256(teacher_run.checkpoint(8)) and known["split"] == "validation"
    assert known["top1"] == pytest.approx(teacher_run.rows()[-1]["val_top1"], abs=1e-6)
    line = f"teacher {transferred.teacher.path}: top-1 {known['top1']:.2%} on validation"
    assert transferred.first.count(line) == 1 and "top-1" not in transferred.second
    assert transferred.stopped.notes()["teacher"] == known


@pytest.mark.slow
def test_a_run_with_a_teacher_goes_on_where_it_stopped_and_keeps_its_metrics(transferred):
    assert transferred.stopped.steps() == [4, 6] and not transferred.stopped.finished
    assert transferred.run.finished and "going on after step 6" in transferred.second
    rows = transferred.run.rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    transfers = {f"transfer_{size}" for size in PAIRS}
    validation = {"val_cross_entropy", "val_top1", "val_top5"}
    rate = {"epoch", "seconds", "images_per_second"}
    assert set(rows[0]) == {"loss", "cross_entropy", "top1", "top5"} | transfers | validation | rate
    # metrics.csv has seven digits of each
    total = rows[0]["cross_entropy"] + 1000 * sum(rows[0][name] for name in transfers)
    assert rows[0]["loss"] == pytest.approx(total, rel=2e-6)


@pytest.mark.slow
def test_neither_training_nor_resuming_touches_the_teacher(transferred, teacher_run):
    def contents(folder):
        return {path.relative_to(folder): sha256(path) for path in folder.rglob("*") if path.is_file()}

    assert contents(transferred.teacher.path) == contents(teacher_run.path)


@pytest.mark.slow
def test_a_resumed_run_needs_the_same_teacher(transferred, tmp_path):
    # of the same network, at the same path, but trained for an epoch less
    kept = transferred.teacher.checkpoint(8).read_bytes()
    shutil.copy(transferred.teacher.checkpoint(4), transferred.teacher.checkpoint(8))
    try:
        run = copy_of(transferred.stopped, tmp_path / "run")
        with pytest.raises(UserError, match="has other weights than when .* was started"):
            train(transferred.config, run.path)
        assert run.steps() == [4, 6]
    finally:
        transferred.teacher.checkpoint(8).write_bytes(kept)


@pytest.mark.slow
def test_a_student_is_evaluated_without_its_teacher(transferred, tmp_path):
    away = transferred.teacher.path.rename(tmp_path / "away")
    try:
        scores = measure(transferred.run.path, split="validation").scores
        assert scores["top1"] == pytest.approx(transferred.run.rows()[-1]["val_top1"], abs=1e-6)
        assert scores["loss"] == pytest.approx(transferred.run.rows()[-1]["val_cross_entropy"], rel=1e-5)
        _, printed = trained(transferred.config, transferred.run.path)
        assert "is finished: 2 epochs" in printed
    finally:
        away.rename(transferred.teacher.path)


def refused(config, folder):
    """The sentence with which a run is refused, and nothing is left behind."""
    with pytest.raises(UserError) as raised:
        train(config, folder)
    assert not folder.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def unfinished(config, folder):
    """A run folder as `train` leaves it before the first step."""
    run = RunFolder(folder)
    run.create(config.resolved(32))
    return run


def test_a_teacher_that_has_not_finished_is_refused(tmp_path):
    teacher = unfinished(TEACHER, tmp_path / "teacher")
    sentence = refused(dataclasses.replace(STUDENT, teacher=str(teacher.path)), tmp_path / "run")
    assert sentence == f"the teacher in {teacher.path} has not finished training; run its cdc-keras train command again"


def test_a_teacher_that_is_an_extractor_is_refused(tmp_path):
    teacher = unfinished(RunConfig(train_limit=64), tmp_path / "teacher")
    sentence = refused(dataclasses.replace(STUDENT, teacher=str(teacher.path)), tmp_path / "run")
    assert sentence == f"the teacher {teacher.path} is a run of task extractor; give one of task classifier"


def test_a_teacher_that_is_no_run_folder_is_refused(tmp_path):
    sentence = refused(dataclasses.replace(STUDENT, teacher=str(tmp_path / "none")), tmp_path / "run")
    assert "is no run folder" in sentence


@pytest.mark.slow
def test_a_teacher_of_another_image_size_is_refused(teacher_run, tmp_path):
    config = dataclasses.replace(STUDENT, image_size=16, teacher=str(teacher_run.path))
    sentence = refused(config, tmp_path / "run")
    assert f"teacher {teacher_run.path} sees images of 32 px, the classifier of 16 px" in sentence


@pytest.mark.slow
def test_a_teacher_of_other_categories_is_refused(teacher_run, tmp_path):
    teacher = copy_of(teacher_run, tmp_path / "teacher")
    data = teacher.notes()["data"]
    teacher.note(data=data | {"classes": [*data["classes"][:-1], "zebra"]})
    sentence = refused(dataclasses.replace(STUDENT, teacher=str(teacher.path)), tmp_path / "run")
    assert f"teacher {teacher.path} was trained on other categories than shapes has" in sentence


def test_an_extractor_takes_no_teacher():
    with pytest.raises(UserError, match="teacher transfers attention to a classifier"):
        dataclasses.replace(DM, teacher="somewhere")


@pytest.mark.slow
def test_the_features_of_a_classifier_are_an_extractor(dm_run):
    classifier = load_run(dm_run)[0].network
    # of the groups at 32, 16 and 8 px that at T's resolution
    group = keras.Model(classifier.input, classifier.get_layer("stage3_block1_add").output)
    extractor = load(dm_run.path)
    assert extractor.output_shape == (None, 8, 8, 64)
    np.testing.assert_array_equal(extractor(IMAGES, training=False), group(IMAGES, training=False))
    assert set(dm_run.rows()[0]) >= {"top1", "val_top1"}  # it is trained to classify
    scores = measure(dm_run.path, split="validation").scores
    assert scores["top1"] == pytest.approx(dm_run.rows()[-1]["val_top1"], abs=1e-6)


@pytest.mark.slow
def test_a_gate_by_a_classifiers_features_with_block_attention_and_a_teacher(dm_run, teacher_run, tmp_path):
    config = dataclasses.replace(
        STUDENT,
        epochs=1,
        extractor=str(dm_run.path),
        block_attention="se",
        teacher=str(teacher_run.path),
    )
    run = train(config, tmp_path / "run", pictures=False)
    network = load_run(run)[0].network
    names = [layer.name for layer in network.layers]
    assert {"extractor", "stage1_block1_se_out", "gate_stage2_block1_add_out", "gate_stage3_block1_add_out"} <= {*names}
    assert run.notes()["transfer"] == {size: list(pair) for size, pair in PAIRS.items()}
    assert set(run.rows()[0]) >= {f"transfer_{size}" for size in PAIRS}
    inside, outside = network.get_layer("extractor").network, load(dm_run.path)
    for a, b in zip(values(inside.variables), values(outside.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"context_size": 5}, "no group of wrn10_1 ends at T's resolution, 5; its groups end at 32x32, 16x16, 8x8"),
        ({"image_size": 20}, "its groups end at 20x20, 10x10, 5x5; give context_size"),
    ],
)
def test_a_classifier_without_a_group_at_ts_resolution_is_refused_before_it_trains(changes, sentence, tmp_path):
    assert sentence in refused(dataclasses.replace(DM, **changes), tmp_path / "run")


def gates(sites):
    """The names of the gates of a ResNet-8 without context."""
    config = dataclasses.replace(STUDENT, gate_attention=False, gate_sites=sites).resolved(32)
    network = classifier(config, 10)
    return [layer.name for layer in network.layers if re.fullmatch("gate_.*_add_out", layer.name)]


@pytest.mark.parametrize(
    ("sites", "blocks"),
    [
        (("16x16",), ["stage2_block1"]),
        (("8x8",), ["stage3_block1"]),
        (("32x32", "8x8"), ["stage1_block1", "stage3_block1"]),
        (("stage1_block1_add",), ["stage1_block1"]),
        ((), ["stage2_block1", "stage3_block1"]),
    ],
)
def test_gates_are_where_gate_sites_says_and_nowhere_else(sites, blocks):
    assert gates(sites) == [f"gate_{block}_add_out" for block in blocks]


def test_a_resolution_at_which_no_group_ends_is_refused_with_those_there_are(tmp_path):
    config = dataclasses.replace(STUDENT, gate_attention=False, gate_sites=("16x16", "12x12"))
    sentence = refused(config, tmp_path / "run")
    assert "no group of resnet8 ends at 12x12" in sentence and "end at 32x32, 16x16, 8x8; give gate_sites" in sentence


def test_a_resolution_that_is_not_square_is_refused(tmp_path):
    config = dataclasses.replace(STUDENT, gate_attention=False, gate_sites=("16x8",))
    assert "16x8" in refused(config, tmp_path / "run")
