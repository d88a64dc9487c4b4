"""Precision and determinism: 16 bits where they do no harm, loss scaling for each player, runs that repeat to the bit.

float16 is computed on a CPU at about a hundredth of float32's speed, so its networks are as small as can be.
"""

import csv
import dataclasses
import hashlib
import pathlib
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiny_runs import CLASSIFIER

from cdc_keras import zoo
from cdc_keras.config import RunConfig
from cdc_keras.devices import precision as numerics
from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.networks import autoencoder, registry
from cdc_keras.networks.common import batch_norm, classify, conv
from cdc_keras.networks.layers import ChannelCompatibility
from cdc_keras.release.add import add
from cdc_keras.release.card import card
from cdc_keras.release.verify import verify
from cdc_keras.runs import callbacks, training
from cdc_keras.runs.evaluation import evaluate
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import Trained, load, load_trained, load_trainer, untrained_model
from cdc_keras.runs.training import train
from cdc_keras.tables.jobs import read_flags
from cdc_keras.trainers import build as models
from cdc_keras.trainers import losses, optimizers
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.trainers.distillation import AttentionTransfer, attention_map
from cdc_keras.weights import fingerprint

HALF = ("mixed_bfloat16", "mixed_float16")
ROUNDING = {"mixed_bfloat16": 2**-8, "mixed_float16": 2**-11}  # of one number
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
SMALL = RNG.uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3], "int32")
# Every term of the loss counts; at the paper's weights half of them would not in a first step.
LOUD = {"fool_weight": 1.0, "fool_ramp_steps": 0, "repulsive_weight": 1.0, "repulsive_delta": 10.0}


@pytest.fixture(params=HALF)
def half(request):
    return request.param


def in_precision(precision, make, like=None):
    """Returns what `make` makes in a precision, with the weights of the model `like`."""
    with numerics.policy(precision):
        made = make()
    if like is not None:
        made.set_weights(like.get_weights())
    return made


def disentangler(precision, like=None):
    model = in_precision(precision, lambda: Disentangler(32, 4, discriminator_width=8, **LOUD), like)
    if model.adversarial:
        for layer in model.discriminator.layers:
            if isinstance(layer, layers.Dropout):
                layer.rate = 0.0  # the random numbers of two precisions differ
    model.compile()
    return model


def small_network():
    """(B, 8, 8, 3) -> logits (B, 4); smooth, so that rounding is not multiplied by ReLUs that change sides."""
    images = keras.Input((8, 8, 3), name="images")
    x = batch_norm(conv(images, 8, 3, "conv1"), "conv1_bn")
    x = layers.Activation("tanh", name="conv1_act")(x)
    x = batch_norm(conv(x, 8, 3, "conv2"), "conv2_bn")
    return keras.Model(images, classify(layers.Activation("tanh", name="conv2_act")(x), 4))


def small_classifier(network):
    return Classifier(network)


def small_transfer(network):
    keras.utils.set_random_seed(1)
    pairs = {"8x8": ("conv2_act", "conv1_act")}
    return AttentionTransfer(network, pairs, in_precision("float32", small_network), weight=1e-4)


def values(variables):
    return [np.asarray(v.value) for v in variables]


def same(ones, others):
    return all(np.array_equal(a, b) for a, b in zip(ones, others, strict=True))


def apart(got, expected):
    """Returns how far lists of arrays are apart: the norm of the difference over that of what is expected."""
    difference = [np.float64(a) - np.float64(b) for a, b in zip(got, expected, strict=True)]
    squares = [sum((np.float64(a) ** 2).sum() for a in arrays) for arrays in (difference, expected)]
    return np.sqrt(squares[0] / squares[1])


# Policy


def test_the_policy_is_what_it_was_also_after_an_error(half):
    before = keras.config.dtype_policy()
    with pytest.raises(ValueError, match="no policy of ours"), numerics.policy(half):
        assert keras.config.dtype_policy().name == half
        raise ValueError("no policy of ours")
    assert keras.config.dtype_policy().name == before.name


@pytest.mark.parametrize("task", ["extractor", "classifier"])
def test_a_config_builds_in_its_precision_with_float32_variables_and_the_same_fingerprint(task, half):
    config = RunConfig(task=task, network="resnet8", warmup_epochs=0.0, precision=half).resolved(32)
    plain = models.build(dataclasses.replace(config, precision="float32"), 4, 10)
    model = models.build(config, 4, 10)
    network, of_plain = (m.network if task == "classifier" else m.encoder for m in (model, plain))
    computes = half.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in network.layers[1:] if layer.name != "logits"} == {computes}
    assert {layer.compute_dtype for layer in of_plain.layers} == {"float32"}
    assert {v.dtype for v in model.trainable_variables + model.optimizer.variables} <= {"float32", "int64"}
    assert fingerprint(model) == fingerprint(plain)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("flags", "onednn", "expected"),
    [
        ("avx2 avx512f amx_bf16", "1", "mixed_bfloat16"),
        ("avx2 avx512f avx512_bf16", "1", "mixed_bfloat16"),
        ("avx2 avx512f amx_bf16", "0", "float32"),
        ("avx2 avx512f avx512bw", "1", "float32"),
        (None, "1", "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_computes_in_it(flags, onednn, expected, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"model name\t: A CPU\nflags\t\t: {flags}\n")
    monkeypatch.setattr(numerics, "CPUINFO", cpuinfo)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert numerics.fastest() == expected
    assert numerics.slower_than_float32("mixed_bfloat16") == (expected == "float32")
    assert numerics.slower_than_float32("mixed_float16") and not numerics.slower_than_float32("float32")


def test_a_run_keeps_the_precision_that_auto_took_at_its_beginning(tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(CLASSIFIER, precision="auto")
    monkeypatch.setattr(numerics, "cpu_computes_bfloat16", lambda: True)
    run = train(config, tmp_path / "run")
    assert run.config().precision == "mixed_bfloat16"
    assert "--precision=mixed_bfloat16" in (run.path / "flags.txt").read_text()
    monkeypatch.setattr(numerics, "cpu_computes_bfloat16", lambda: False)  # as if it went on elsewhere
    assert train(config, tmp_path / "run").config().precision == "mixed_bfloat16"
    assert "float32 would be faster" in capsys.readouterr().err
    assert train(config, tmp_path / "another").config().precision == "float32"


def test_a_table_wants_its_precision_named(tmp_path):
    flagfile = tmp_path / "auto.flags"
    flagfile.write_text("--task=classifier\n--dataset=shapes\n--precision=auto\n")
    with pytest.raises(UserError, match="the runs of a table share one: name it"):
        read_flags(flagfile)


def test_precision_belongs_to_a_run_and_may_not_change_within_it(tmp_path):
    run = training.RunFolder(tmp_path / "run")
    run.create(RunConfig())
    with pytest.raises(UserError, match="precision is 'float32' there and 'mixed_bfloat16' now"):
        run.check(RunConfig(precision="mixed_bfloat16"))
    with pytest.raises(UserError, match="deterministic is False there and True now"):
        run.check(RunConfig(deterministic=True))


# Refusals


@pytest.fixture
def under_jax(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")


def test_float16_on_several_devices_is_refused():
    with pytest.raises(UserError, match="one device only.*18666"):
        RunConfig(precision="mixed_float16", strategy="mirrored")
    RunConfig(precision="mixed_bfloat16", strategy="mirrored")


def test_float16_under_jax_is_refused_before_a_folder_is_made(under_jax, tmp_path):
    with pytest.raises(UserError, match="skips steps in a way that JAX cannot compile"):
        train(RunConfig(precision="mixed_float16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_determinism_under_jax_is_refused_on_an_accelerator_alone(under_jax, monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="cannot be promised under JAX on a gpu"):
        numerics.prepare(RunConfig(deterministic=True))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    numerics.prepare(RunConfig(deterministic=True))


# What stays float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_losses_of_16_bit_tensors_are_those_of_the_same_numbers_in_float64(dtype):
    images, others = (tf.cast(RNG.normal(0, 40, (2, 16, 16, 3)), dtype) for _ in range(2))  # squares sum to 2e6
    logits = tf.cast(RNG.normal(0, 4, (2, 5)), dtype)
    x, y, z = (np.asarray(t, "float64") for t in (images, others, logits))
    labels = np.array([1, 3])
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    of_labels = log_p[[0, 1], labels]
    distance = np.sqrt(((x - y) ** 2).mean((1, 2, 3)))
    maps = (x**2).mean(-1).reshape(2, -1)
    found = {
        "reconstruction": (losses.reconstruction_loss(images, others), ((x - y) ** 2).mean()),
        "entropies": (losses.cross_entropies(labels, logits), -of_labels),
        "fooling": (losses.fooling_loss(logits, labels), np.exp(of_labels).mean()),
        "uniform": (losses.fooling_loss(logits, labels, "uniform_ce"), -log_p.mean()),
        "repulsive": (losses.repulsive_loss(images, others, 100)[0], (100 - distance).mean()),
        "attention": (attention_map(images), maps / np.linalg.norm(maps, axis=1, keepdims=True)),
    }
    for name, (got, expected) in found.items():
        assert got.dtype == tf.float32, name
        np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=name)


def test_channel_compatibility_adds_up_products_that_leave_the_range_of_float16(half):
    me, fe = np.full((1, 16, 16, 1), 50.0), np.full((1, 16, 16, 2), 50.0)
    fe[:, 8:, :, 0] = -50.0  # channel 0: 320,000 - 320,000; channel 1: 640,000
    layer = ChannelCompatibility(dtype=half)
    found = layer([tf.cast(x, layer.compute_dtype) for x in (me, fe)])
    assert found.dtype == layer.compute_dtype
    np.testing.assert_array_equal(np.asarray(found, "float32").ravel(), [0.5, 1.0])


# An extractor and a classifier of two precisions


@pytest.mark.parametrize(
    ("of_extractor", "of_classifier"),
    [pytest.param("mixed_bfloat16", "float32", marks=pytest.mark.long), ("float32", "mixed_bfloat16")],
)
def test_extractor_and_classifier_may_differ_in_precision(of_extractor, of_classifier, tmp_path):
    extractor = in_precision(of_extractor, lambda: autoencoder.encoder(32))
    sites = registry.sites(registry.build("resnet8", 32, num_classes=4), 16)

    def make():
        return attach(registry.build("resnet8", 32, num_classes=4), extractor, sites)

    gated = in_precision(of_classifier, make)

    # T inside is T outside, to the bit: no policy rounds the images on their way
    inside = keras.Model(gated.input, gated.get_layer("extractor").output)
    t = inside(IMAGES)
    assert t.dtype == tf.float32
    np.testing.assert_array_equal(t, np.asarray(extractor(IMAGES, training=False), "float32"))

    frozen, start = values(gated.get_layer("extractor").network.variables), values(gated.trainable_variables)
    model = Classifier(gated)
    model.compile(optimizers.recipe("wrn", 0.01))
    assert not model.skipped_steps()  # the gradient passes no float16
    model.fit(IMAGES, LABELS, batch_size=4, verbose=0)
    assert same(values(gated.get_layer("extractor").network.variables), frozen)
    assert not same(values(gated.trainable_variables), start)

    logits = np.asarray(gated(IMAGES))
    assert logits.dtype == np.float32
    gated.save(tmp_path / "gated.keras")
    gated.save_weights(tmp_path / "gated.weights.h5")
    fresh = in_precision(of_classifier, make)
    fresh.load_weights(tmp_path / "gated.weights.h5")
    for again in (keras.models.load_model(tmp_path / "gated.keras"), fresh):
        np.testing.assert_array_equal(again(IMAGES), logits)
        of_layers = [layer.compute_dtype for layer in again.layers[1:]]
        assert of_layers == [layer.compute_dtype for layer in gated.layers[1:]]


def dtypes(network):
    """Returns in which precisions the layers compute, those of its extractor too."""
    inside = [network.get_layer("extractor").network] if "extractor" in {x.name for x in network.layers} else []
    return {layer.compute_dtype for part in (network, *inside) for layer in part.layers[1:]}


def saved(config, folder):
    """Returns the folder of a run of `config`, untrained, and the model in its checkpoint."""
    config, run = config.resolved(32), RunFolder(folder)
    extractor = None
    if config.gated:
        of = RunConfig().resolved(32)
        extractor = Trained(models.untrained_extractor(models.in_precision(of, config.precision)), of, (), "")
    run.create(config, extractor)
    model = untrained_model(config, 4, run, 10, extractor)
    run.note(data={"classes": list("abcd")}, steps_per_epoch=10)
    run.check_fingerprint(model)
    run.save_checkpoint(model, 1)
    return run, model


@pytest.mark.parametrize("task", ["extractor", "classifier", "gated"])
def test_what_was_trained_in_16_bits_is_loaded_to_compute_in_float32_but_resumed_in_its_own(task, half, tmp_path):
    config = RunConfig(precision=half)
    if task != "extractor":
        config = dataclasses.replace(config, task="classifier", network="resnet8", warmup_epochs=0.0)
    if task == "gated":
        config = dataclasses.replace(config, extractor="elsewhere")
    run, model = saved(config, tmp_path / "run")

    def network(model):
        return model.encoder if task == "extractor" else model.network

    loaded, resumed = load_trainer(run), untrained_model(config.resolved(32), 4, run, 10)
    assert same(values(loaded.variables), values(model.variables))
    assert dtypes(network(loaded)) == {"float32"}
    in_half = {half.removeprefix("mixed_")} if task == "extractor" else {half.removeprefix("mixed_"), "float32"}
    assert dtypes(network(resumed)) == dtypes(network(model)) == in_half
    if task == "gated":
        assert dtypes(network(resumed).get_layer("extractor").network) == {half.removeprefix("mixed_")}


@pytest.mark.long
def test_records_of_the_zoo_compute_in_float32_and_gate_in_the_precision_of_the_run(half, tmp_path, monkeypatch):
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path / "zoo"))
    (tmp_path / "zoo").mkdir()
    config = RunConfig(train_limit=32, batch_size=4, epochs=1, validation_fraction=0.3, context="gm", precision=half)
    extractor = train(config, tmp_path / "extractor", pictures=False)
    classifier = {"task": "classifier", "context": "cdcgm", "network": "wrn10_1", "warmup_epochs": 0.1}
    gated = train(dataclasses.replace(config, **classifier, extractor=str(extractor.path)), tmp_path / "gated")
    trained = {"extractor": load(extractor.path), "gated": load_trainer(gated).network}
    inside = load_trainer(gated, half).network.get_layer("extractor").network
    for network in (load_trained(extractor.path, precision=half).network, inside):
        assert dtypes(network) == {half.removeprefix("mixed_")}
    for name, run in (("extractor", extractor), ("gated", gated)):
        evaluate(run.path, split="validation")
        record = add(run.path, name)
        released = zoo.load(name)
        np.testing.assert_array_equal(released(IMAGES), trained[name](IMAGES))
        assert dtypes(released) == dtypes(trained[name]) == {"float32"}
        assert f"trained in {half}, computes in float32" in card(record)
    assert dtypes(load_trained("zoo:extractor", precision=half).network) == {half.removeprefix("mixed_")}
    assert not verify()


# Gradients and steps


def gradients_of_both_players(model, monkeypatch):
    """Returns ({player: what one update gives to its optimizer, without the scale}, metrics)."""
    found = {}
    for name, player in model.players().items():
        if isinstance(player, keras.optimizers.LossScaleOptimizer):
            player.dynamic_scale.assign(2.0**10)
        scale = float(player.scale_loss(1.0))

        def keep(gradients, _, name=name, scale=scale):
            found[name] = [g / scale for g in gradients]

        monkeypatch.setattr(player, "apply", keep)
    return found, {name: float(x) for name, x in model.counted_update(IMAGES, LABELS).items()}


def test_the_gradients_and_readings_of_both_players_are_near_those_of_float32(half, monkeypatch):
    keras.utils.set_random_seed(0)
    plain = disentangler("float32")
    both = plain, disentangler(half, like=plain)
    (expected, metrics), (found, metrics_in_half) = (gradients_of_both_players(m, monkeypatch) for m in both)
    assert metrics_in_half == pytest.approx(metrics, rel=30 * ROUNDING[half])
    for name in expected:
        # A share of the ReLUs, proportional to the rounding, changes sides; of the gradient's norm that is the root.
        assert apart(found[name], expected[name]) < 6 * ROUNDING[half] ** 0.5, name


@pytest.mark.parametrize("make", [small_classifier, small_transfer])
def test_a_step_on_gradients_below_the_range_of_float16_is_that_of_float32(make):
    """The last layer is all but 0, and so are gradients further down: about 1e-8."""
    keras.utils.set_random_seed(0)
    network = small_network()
    kernel = network.get_layer("logits").kernel
    kernel.assign(1e-5 * kernel)

    def step(precision, scaled=True):
        """Returns how far the convolutions move."""
        model = make(in_precision(precision, small_network, like=network))
        model.compile(keras.optimizers.SGD(1e3))
        if not scaled:
            model.optimizer.dynamic_scale.assign(1.0)
        model.counted_update(SMALL, LABELS)
        return [
            np.asarray(model.network.get_layer(name).kernel) - np.asarray(network.get_layer(name).kernel)
            for name in ("conv1", "conv2")
        ]

    expected = step("float32")
    assert apart(step("mixed_float16"), expected) < 20 * ROUNDING["mixed_float16"]
    assert apart(step("mixed_float16", scaled=False), expected) > 0.3


def test_the_fooling_gradient_at_t_does_not_vanish_in_float16():
    plain = disentangler("float32")
    kernel = plain.discriminator.get_layer("d_logits").kernel
    kernel.assign(1e-5 * kernel)
    model = disentangler("mixed_float16", like=plain)
    context = tf.constant(RNG.normal(size=(4, 8, 8, 64)), tf.float32)
    expected = plain._fooling_gradient(context, LABELS)[1]
    assert 0 < np.abs(expected).max() < 6e-8  # the least number float16 has
    assert apart([model._fooling_gradient(context, LABELS)[1]], [expected]) < 50 * ROUNDING["mixed_float16"]


# Skipped steps


@pytest.mark.parametrize("player", ["autoencoder", "discriminator"])
def test_a_players_overflow_leaves_out_its_own_step_alone(player, tmp_path):
    model = disentangler("mixed_float16")
    moves = {"autoencoder": model.autoencoder_variables, "discriminator": model.discriminator.trainable_variables}
    (other,) = set(moves) - {player}
    before = {name: values(variables) for name, variables in moves.items()}
    for name, optimizer in model.players().items():
        optimizer.dynamic_scale.assign(2.0**40 if name == player else 2.0**6)
    metrics = model.counted_update(IMAGES, LABELS)

    overflowed, went_well = model.players()[player], model.players()[other]
    assert same(values(moves[player]), before[player])
    assert all((a != b).any() for a, b in zip(values(moves[other]), before[other], strict=True))
    assert [float(overflowed.dynamic_scale), float(went_well.dynamic_scale)] == [2.0**39, 2.0**6]
    assert [int(overflowed.iterations), int(went_well.iterations), int(model.steps)] == [0, 1, 1]
    assert model.skipped_steps() == {f"{player}_skipped_steps": 1.0, f"{other}_skipped_steps": 0.0}
    assert all(np.isfinite(float(x)) for x in metrics.values())  # or the run would stop

    model.save_weights(tmp_path / "model.weights.h5")
    again = disentangler("mixed_float16")
    again.load_weights(tmp_path / "model.weights.h5")
    for name, optimizer in again.players().items():
        assert {v.name for v in optimizer.variables} >= {"dynamic_scale", "step_counter", "iteration"}
        assert same(values(optimizer.variables), values(model.players()[name].variables))
    assert int(again.steps) == 1 and same(values(again.optimizer.variables), values(model.optimizer.variables))


def overflowing(optimizer, *networks):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**22)


def test_a_float16_run_with_skipped_steps_sees_all_data_and_goes_on_exactly_in_mid_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizers, "loss_scaled", overflowing)
    changes = {"network": "wrn10_1", "image_size": 8, "epochs": 2, "validation_fraction": 0.01}
    config = dataclasses.replace(CLASSIFIER, **changes, precision="mixed_float16")
    straight = train(config, tmp_path / "straight", pictures=False)
    skipped = [row["skipped_steps"] for row in straight.rows()]
    assert 0 < skipped[0] <= skipped[1] < 8 and straight.steps() == [4, 8]

    resume_at_step(6, config, tmp_path / "resumed", monkeypatch)
    assert stored(straight.checkpoint(8)) == stored(tmp_path / "resumed/checkpoints/step-00000008.weights.h5")
    assert metrics(straight.path) == metrics(tmp_path / "resumed")


@pytest.mark.long
@pytest.mark.parametrize("name", ["extractor", "gated"])
def test_a_float16_extractor_and_what_it_gates_go_on_exactly_in_mid_epoch(name, tmp_path, monkeypatch):
    config = RunConfig(
        precision="mixed_float16", train_limit=32, batch_size=8, epochs=2, validation_fraction=0.01, context_size=8
    )
    if name == "gated":
        extractor = train(dataclasses.replace(config, epochs=1, precision="mixed_bfloat16"), tmp_path / "extractor")
        classifier = {"task": "classifier", "network": "wrn10_1", "warmup_epochs": 0.1, "context_size": None}
        config = dataclasses.replace(config, **classifier, extractor=str(extractor.path))
    straight = train(config, tmp_path / "straight", pictures=False)
    resume_at_step(6, config, tmp_path / "resumed", monkeypatch)
    assert stored(straight.checkpoint(8)) == stored(tmp_path / "resumed/checkpoints/step-00000008.weights.h5")
    assert metrics(straight.path) == metrics(tmp_path / "resumed")


def resume_at_step(last, config, folder, monkeypatch):
    """Trains a run that is stopped after the step `last`, and once more to its end."""
    calls = []

    def stop(self, batch, logs=None):
        calls.append(batch)
        self.model.stop_training = self.signalled = len(calls) == last

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.StopOnSignal, "on_train_batch_end", stop)
        assert train(config, folder, pictures=False).steps()[-1] == last
    assert train(config, folder, pictures=False).finished


def stored(path):
    """Returns {place in the file: content of the array}."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda at, item: found.update({at: item[()].tobytes()} if isinstance(item, h5py.Dataset) else {})
        )
    assert len(found) > 30
    return found


def metrics(folder):
    """Returns the rows of metrics.csv without what a clock measured."""
    with (pathlib.Path(folder) / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


# Determinism

# Prints what the seed alone fixes, then trains.
RUNS = """
import dataclasses, hashlib, sys
import numpy as np
from cdc_keras.data.load import load_dataset
from cdc_keras.trainers.build import build
from cdc_keras.config import RunConfig
from cdc_keras.data.pipeline import training_batches
from cdc_keras.runs.training import train

folder, names, epochs = sys.argv[1], sys.argv[2].split(), int(sys.argv[3])
config = RunConfig(train_limit=64, batch_size=16, epochs=epochs, validation_fraction=0.01, seed=3)
dataset = load_dataset(config)
model = build(config.resolved(32), 10, 4)
seen = hashlib.sha256()
for weights in model.get_weights():
    seen.update(np.asarray(weights).tobytes())
for images, labels in training_batches(
    dataset.train, 32, batch_size=16, seed=3, epoch=0, crop_padding=4, flip=True
):
    seen.update(np.asarray(images).tobytes() + np.asarray(labels).tobytes())
print(seen.hexdigest())
config = dataclasses.replace(config, deterministic=True)
train(config, folder + "/extractor", pictures=False)
if "gated" in names:
    classifier = {"task": "classifier", "network": "resnet8", "warmup_epochs": 0.1}
    train(dataclasses.replace(config, **classifier, extractor=folder + "/extractor"), folder + "/gated", pictures=False)
"""


@pytest.mark.long
@pytest.mark.parametrize(("names", "epochs"), [("extractor", 1), ("extractor gated", 4)])
def test_two_processes_give_the_same_run_to_the_bit(names, epochs, tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    root = pathlib.Path(__file__).resolve().parents[2]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS, folder, names, str(epochs)], cwd=root, stdout=subprocess.PIPE, text=True
        )
        for folder in folders
    ]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1] and len(printed[0].strip()) == 2 * hashlib.sha256().digest_size
    for name in names.split():
        one, two = (folder / name for folder in folders)
        last = f"checkpoints/step-{4 * epochs:08d}.weights.h5"
        assert stored(one / last) == stored(two / last)
        assert metrics(one) == metrics(two)


@pytest.mark.parametrize("task, threads", [("extractor", [3]), ("classifier", [])])
def test_an_extractors_operations_get_half_of_the_cores(task, threads, monkeypatch):
    seen = []
    monkeypatch.setattr(numerics, "cores", lambda: 6)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", seen.append)
    numerics.share_cores(RunConfig(task=task))
    assert seen == threads
