"""The peers of `benchmarks/training_step.py` do the same arithmetic as ours; without PyTorch only a refusal is run."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks import training_step
from cdc_keras.complexity import parameters
from cdc_keras.data.pipeline import gather
from cdc_keras.networks import registry
from cdc_keras.trainers import optimizers
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler

VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the benchmark is of TensorFlow")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the peers need PyTorch: make reference")


@pytest.fixture
def peers(torch):
    from benchmarks import torch_peers

    return torch_peers


def examples(count, classes):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (count, 32, 32, 3)).astype("float32")
    return images, rng.integers(classes, size=count).astype("int32")


def hand_over(model, *modules):
    """Gives the modules the weights of the layers they are named after, every one of them."""
    import torch

    ours = {}
    for layer in model.layers:
        for variable in layer.weights:
            value = variable.numpy()
            if variable.name == "kernel":
                value = value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
            ours[layer.name, VARIABLES[variable.name]] = value
    theirs = {}
    for module in modules:
        for path, tensor in module.state_dict().items():
            layer, _, name = path.rpartition(".")
            if name != "num_batches_tracked":
                theirs[layer.replace(".", "_"), name] = tensor
    for layer, name in [key for key in ours if key[0].endswith("_condition")]:  # the channels of the planes come last
        together = layer.removesuffix("_condition"), name
        axis = 0 if layer in ("g2_conv2_condition", "g2_conv4_condition") else 1  # the transposed ones'
        ours[together] = np.concatenate([ours[together], ours.pop((layer, name))], axis)
    assert set(ours) == set(theirs)
    for key, tensor in theirs.items():
        assert tuple(tensor.shape) == ours[key].shape
        tensor.copy_(torch.tensor(ours[key]))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["resnet20", "wrn16_4", "vgg13", "vgg13_slim"])
def test_the_classifiers_have_as_many_parameters(peers, name):
    assert count(peers.network(name, 100)) == parameters(registry.build(name, 32, num_classes=100))


@pytest.mark.parametrize("classes", [10, 100])
def test_the_extractors_have_as_many_parameters(peers, classes):
    ours, theirs = Disentangler(32, classes), peers.ExtractorStep(classes)
    for part in ("encoder", "decoder", "discriminator"):
        assert count(getattr(theirs, part)) == parameters(getattr(ours, part)), part


WAYS = {"plain": {}, "channels last": {"channels_last": True}, "compiled": {"channels_last": True, "compiled": True}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["resnet8", "wrn10_1", "vgg13_slim"])
def test_steps_of_the_classifiers_agree(peers, torch, name, way):
    images, labels = examples(16, 10)
    model = Classifier(registry.build(name, 32, num_classes=10))
    model.compile(optimizers.recipe("wrn", 0.01))
    module = peers.network(name, 10)
    hand_over(model.network, module)
    step = peers.ClassifierStep(module, 0.01, peers.Way(**WAYS[way]))
    for tolerance in (1e-4, 1e-3):  # what the first step did shows in the second
        model.reset_metrics()
        ours = {name: float(value) for name, value in model.update(images, labels).items()}
        theirs = step(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels).long())
        assert ours == pytest.approx(theirs, abs=tolerance)


@pytest.mark.parametrize(("classes", "way"), [(10, "plain"), (100, "plain"), (10, "compiled")])
def test_steps_of_the_extractor_agree(peers, torch, classes, way):
    images, labels = examples(16, classes)
    model = Disentangler(32, classes, fool_ramp_steps=0)
    for layer in model.discriminator.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile()
    step = peers.ExtractorStep(classes, dropout=0.0, fool_ramp_steps=0, way=peers.Way(**WAYS[way]))
    for ours, theirs in ((model.encoder, step.encoder), (model.decoder, step.decoder)):
        hand_over(ours, theirs)
    hand_over(model.discriminator, step.discriminator)
    for tolerance in (1e-4, 1e-3):  # Adam's first step has the length of the rate whatever the gradient: signs may part
        model.reset_metrics()
        ours = {name: float(value) for name, value in model.update(images, labels).items()}
        theirs = step(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels).long())
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=tolerance)


def test_the_input_paths_agree(peers, torch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(9, 8, 8, 3), dtype=np.uint8), np.arange(9, dtype=np.int32)
    plan = {
        "rows": rng.permutation(9).astype(np.int32),
        "down": rng.integers(-4, 5, 9).astype(np.int32),
        "right": rng.integers(-4, 5, 9).astype(np.int32),
        "flipped": rng.random(9) < 0.5,
    }
    ours, _ = gather(keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels), plan)
    theirs = peers.augment(torch.tensor(images.transpose(0, 3, 1, 2)), *(torch.tensor(plan[name]) for name in plan))
    np.testing.assert_allclose(theirs.numpy().transpose(0, 2, 3, 1), ours, atol=1e-6)


def test_the_benchmark_prints_its_table_and_saves_its_numbers(torch, tmp_path):
    out = tmp_path / "training_step.json"
    command = [sys.executable, "-m", "benchmarks.training_step", "--quick", "--rows", "extractor32", "--out", out]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    saved = json.loads(out.read_text())
    rates = saved["measured"]["rows"]["extractor32"]["rates"]
    assert set(rates) == {*training_step.SIDES, training_step.READY}
    assert all(len(values) == 1 for values in rates.values())
    assert sum(line.startswith("| extractor, batch 32") for line in printed.splitlines()) == 2


def test_the_latency_benchmark_prints_its_table_and_saves_its_numbers(torch, tmp_path):
    command = [sys.executable, "-m", "benchmarks.latency", "--rounds=1", "--requests=2", f"--out={tmp_path / 'x.json'}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = json.loads((tmp_path / "x.json").read_text())["seconds"]
    assert sum(line.startswith("| cifar100_resnet20") for line in printed.splitlines()) == 6
    sides = {side: len(values) for side, values in seconds["cifar100_resnet20"]["64"].items()}
    assert sides == dict(saved_model=1, one_thread=1, onnx=1, litert=1, openvino=1, openvino_bf16=1, torch=1)


def test_without_pytorch_the_benchmark_says_so_in_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="^error: the peers need PyTorch"):
        training_step.main(["--rows", "vgg13"])
