"""The networks, SGD and attention transfer against other people's code, on the same weights.

`keras.applications` needs nothing more. PyTorch is not among the requirements: `make reference` installs it and runs
this file; without it those tests are skipped.
"""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cdc_keras.networks import registry
from cdc_keras.trainers import optimizers
from cdc_keras.trainers.distillation import attention_map, transfer_loss

pytestmark = pytest.mark.usefixtures("zero_kernels")


@pytest.fixture
def torch_reference():
    pytest.importorskip("torch", reason="compared with PyTorch: make reference")
    import torch_reference

    return torch_reference


def noise(size, count):
    return np.random.default_rng(size).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def network_with_weights(name, size, block_attention="none"):
    """A network with weights that no default hides, and batch-norm statistics under which activations stay near 1."""
    network = registry.build(name, size, num_classes=10, block_attention=block_attention)
    reference.randomise(network.variables)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # the statistics become those of this batch
    network(noise(size, 4), training=True)
    return network


def assert_close(got, expected, tolerance):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape and np.isfinite(expected).all()
    error = abs(got - expected).max() / abs(expected).max()
    assert error <= tolerance, f"largest error {error:.1e} of the largest value"


# float32 rounds by 2**-24 = 6e-8 of the largest term of every sum; from layer to layer the errors add up, and batch
# norm scales them by gamma over the deviation. Measured: 3.5e-5 at most, against Keras' ResNet-50, and 4e-7 to 2e-5
# against PyTorch. Keras' own epsilon, 1e-3, would be 6e-3, CBAM's two maps exchanged 0.4.
FORWARD = 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 97, 224])
def test_resnet50_gives_the_logits_of_keras_applications(size):
    ours = network_with_weights("resnet50", size)
    theirs = keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    weights, rng = reference.by_layer(ours), np.random.default_rng(1)

    def copy(name, their_conv, their_bn):
        conv, bn = theirs.get_layer(their_conv), weights[f"{name}_bn"]
        bias = rng.normal(0, 0.3, conv.bias.shape)  # theirs have one, which their mean takes away again
        conv.set_weights([weights[name]["kernel"], bias])
        variance = bn["moving_variance"] + 1e-5 - 1.001e-5  # the epsilons
        theirs.get_layer(their_bn).set_weights([bn["gamma"], bn["beta"], bn["moving_mean"] + bias, variance])

    copy("stem", "conv1_conv", "conv1_bn")
    copied = 1
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(1, blocks + 1):
            for i, name in enumerate(("shortcut", "conv1", "conv2", "conv3")):
                if i or block == 1:
                    their = f"conv{stage + 1}_block{block}_{i}"
                    copy(f"stage{stage}_block{block}_{name}", f"{their}_conv", f"{their}_bn")
                    copied += 1
    theirs.get_layer("predictions").set_weights([weights["logits"]["kernel"], weights["logits"]["bias"]])
    assert copied == 53 == sum(isinstance(layer, keras.layers.Conv2D) for layer in theirs.layers)
    images = noise(size, 6)[4:]
    assert_close(ours(images, training=False), theirs(images, training=False), FORWARD)


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 97])
def test_vgg16_gives_the_features_of_keras_applications_where_batch_norm_is_the_identity(size):
    ours = registry.build("vgg16", size, num_classes=10)
    reference.randomise(ours.variables)
    theirs = keras.applications.VGG16(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
    for layer in ours.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            ones = np.ones(layer.gamma.shape)
            layer.set_weights([ones, 0 * ones, 0 * ones, ones - 1e-5])  # variance and epsilon make 1
        elif isinstance(layer, keras.layers.Conv2D):
            theirs.get_layer(layer.name).set_weights(layer.get_weights())
    features = keras.Model(ours.input, ours.get_layer("pool").output)
    images = noise(size, 2)
    assert_close(features(images, training=False), theirs(images, training=False), FORWARD)


@pytest.mark.parametrize("kind", ["none", "se", "cbam"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg13", 33),
        ("resnet20", 32),
        ("resnet20", 33),
        ("wrn16_2", 32),
        ("wrn16_2", 33),
        ("wrn10_1", 32),  # k = 1, the only one whose first block keeps its shape
        pytest.param("preresnet110", 32, marks=pytest.mark.slow),
        pytest.param("preresnet164", 32, marks=pytest.mark.slow),
        pytest.param("resnet18", 64, marks=pytest.mark.slow),
        pytest.param("resnet18", 224, marks=pytest.mark.slow),
        pytest.param("resnet50", 64, marks=pytest.mark.slow),
        pytest.param("resnet50", 97, marks=pytest.mark.slow),
    ],
)
def test_a_network_gives_the_logits_of_pytorch(name, size, kind, torch_reference):
    network = network_with_weights(name, size, kind)
    images = noise(size, 6)[4:]
    expected = torch_reference.logits(name, images, reference.by_layer(network), kind, small_stem=size <= 64)
    assert expected.std() > 0.1  # or an error would be hidden
    assert_close(network(images, training=False), expected, FORWARD)


def test_the_wrn_recipe_moves_weights_as_pytorch_does_while_the_learning_rate_changes(torch_reference):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=7).astype("float32"), rng.normal(size=(12, 7)).astype("float32")
    schedule = optimizers.step_schedule(0.1, epochs=12, steps_per_epoch=1, warmup_epochs=2)
    rates = [float(schedule(step)) for step in range(12)]
    assert len(set(rates)) == 5  # the warm-up and four pieces
    variable, optimizer = keras.Variable(w), optimizers.recipe("wrn", schedule)
    for gradient, expected in zip(gradients, torch_reference.sgd(w, gradients, rates), strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        # a dozen float32 steps, each rounded by 6e-8 of the largest weight
        assert_close(variable, expected, 1e-6)


def test_attention_transfer_has_the_loss_and_the_gradients_of_pytorch(torch_reference):
    rng = np.random.default_rng(0)
    shapes = ((16, 16, 12), (9, 7, 5), (4, 4, 64))  # the teacher is twice as wide
    students = [rng.normal(size=(3, h, w, c)).astype("float32") for h, w, c in shapes]
    teachers = [rng.normal(size=(3, h, w, 2 * c)).astype("float32") for h, w, c in shapes]
    tensors = [tf.constant(x) for x in students]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        pairs = zip(tensors, teachers, strict=True)
        loss = 1000 * sum(transfer_loss(attention_map(x), attention_map(y)) for x, y in pairs)
    expected, gradients = torch_reference.transfer(students, teachers)
    # float32 sums of at most 256 terms, against float64
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    for got, gradient in zip(tape.gradient(loss, tensors), gradients, strict=True):
        assert_close(got, gradient, 1e-6)
