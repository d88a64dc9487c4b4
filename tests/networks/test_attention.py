"""SE and CBAM: their equations against NumPy, where they sit in a block, and a gate behind them."""

import keras
import numpy as np
import pytest
import reference

from cdc_keras.gate.attach import attach
from cdc_keras.networks import attention, autoencoder, graph, registry

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
NETWORKS = ("resnet20", "wrn10_1", "resnet18", "resnet50", "vgg13_slim")
# Odd heights and widths, and a map smaller than the 7x7 kernel; channels below 16 (a hidden width of 4 in SE and of 1
# in CBAM), at no multiple of 16, and many.
SHAPES = ((9, 9, 3), (5, 7, 16), (11, 4, 72), (3, 1, 512), (8, 8, 256))


def dense(x, weights):
    return x @ weights["kernel"] + weights["bias"]


def squeeze_excite(x, weights):
    """x weighted by sigmoid(W2 ReLU(W1 mean(x))) (Hu et al. 2018, Eqs. 2 to 4)."""
    hidden = reference.relu(dense(x.mean(axis=(1, 2)), weights["a_dense1"]))
    return x * reference.sigmoid(dense(hidden, weights["a_dense2"]))[:, None, None, :]


def cbam(x, weights, training=False):
    """x weighted by channel, then by position (Woo et al. 2018, Eqs. 2 and 3)."""

    def shared(pooled):
        return dense(reference.relu(dense(pooled, weights["a_channel_dense1"])), weights["a_channel_dense2"])

    channels = reference.sigmoid(shared(x.mean(axis=(1, 2))) + shared(x.max(axis=(1, 2))))
    x = x * channels[:, None, None, :]
    pooled = np.stack([x.max(axis=3), x.mean(axis=3)], axis=3)
    positions = reference.conv(pooled, weights["a_spatial_conv"]["kernel"])
    norm = dict(weights["a_spatial_bn"])
    if training:
        norm |= {"moving_mean": positions.mean(axis=(0, 1, 2)), "moving_variance": positions.var(axis=(0, 1, 2))}
    return x * reference.sigmoid(reference.batch_norm(positions, norm)), norm


@pytest.fixture(scope="module")
def encoder():
    return autoencoder.encoder(32)


def alone(function, shape):
    """(a model of one block attention named "a", its random weights, random features of several images)."""
    features = keras.Input(shape)
    model = keras.Model(features, function(features, "a"))
    reference.randomise(model.variables)
    return model, reference.by_layer(model), RNG.normal(size=(3, *shape)).astype("float32")


def assert_close(got, expected):
    got = np.asarray(got)
    # float32 against float64: an error of some 2**-24 of the largest term of every sum, of 98 terms in the 7x7
    # convolution and 512 in the widest dense layer, so relative to the largest value.
    error = abs(got - expected).max() / abs(expected).max()
    assert error <= 1e-6, f"largest error {error:.1e} of the largest value"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_se_computes_its_equations(shape):
    model, weights, x = alone(attention.squeeze_excite, shape)
    assert_close(model(x, training=False), squeeze_excite(x.astype("float64"), weights))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cbam_computes_its_equations(shape):
    model, weights, x = alone(attention.cbam, shape)
    assert_close(model(x, training=False), cbam(x.astype("float64"), weights)[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cbam_in_training_normalises_its_map_over_the_batch_and_moves_the_statistics_by_a_tenth(shape):
    model, before, x = alone(attention.cbam, shape)
    expected, of_batch = cbam(x.astype("float64"), before, training=True)
    assert_close(model(x, training=True), expected)
    after = reference.by_layer(model)["a_spatial_bn"]
    for name in ("moving_mean", "moving_variance"):
        assert_close(after[name], 0.9 * before["a_spatial_bn"][name] + 0.1 * of_batch[name])


@pytest.mark.parametrize(("channels", "se", "cbam"), [(3, 4, 1), (16, 4, 1), (72, 4, 4), (256, 16, 16), (512, 32, 32)])
def test_the_hidden_width_is_a_sixteenth_and_in_se_at_least_4(channels, se, cbam):
    weights = alone(attention.squeeze_excite, (2, 2, channels))[1]
    assert weights["a_dense1"]["kernel"].shape == (channels, se)
    weights = alone(attention.cbam, (2, 2, channels))[1]
    assert weights["a_channel_dense1"]["kernel"].shape == (channels, cbam)


def test_the_spatial_convolution_of_cbam_has_no_bias_and_sees_the_maximum_first():
    model, weights, _ = alone(attention.cbam, (9, 9, 16))
    assert set(weights["a_spatial_conv"]) == {"kernel"}
    assert model.get_layer("a_spatial_pool").reductions == ("max", "mean")


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_the_spatial_map_of_cbam_starts_as_one_half_everywhere(training):
    network = registry.build("resnet8", 32, num_classes=10, block_attention="cbam")
    names = [layer.name for layer in network.layers if layer.name.endswith("_spatial_weights")]
    assert len(names) == 3
    for x in graph.activations(network, names)([IMAGES], training=training).values():
        np.testing.assert_array_equal(x, np.full((2, *x.shape[1:]), 0.5))


class Calls:
    """Which layer gives what to which in a network."""

    def __init__(self, network):
        self.calls = graph.trace(network)[1]
        self.producers = {id(output): layer.name for layer, _, output in self.calls}
        self.inputs = {layer.name: [self.producers.get(id(x)) for x in tensors] for layer, tensors, _ in self.calls}

    def consumers(self, name):
        return [consumer for consumer, inputs in self.inputs.items() if name in inputs]


@pytest.mark.parametrize("kind", ["se", "cbam"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_has_one_after_its_last_batch_norm_or_convolution_and_before_the_addition(name, kind):
    calls = Calls(registry.build(name, 32, num_classes=10, block_attention=kind))
    if name.startswith("vgg"):  # no addition: before the ReLU that ends the block
        ends = [f"block{block}_conv2_act" for block in range(1, 6)]
        last = {end: end.replace("act", "bn") for end in ends}
    else:
        ends = [layer for layer in calls.inputs if layer.endswith("_add")]
        number = 3 if name == "resnet50" else 2
        suffix = "" if name.startswith("wrn") else "_bn"  # before activation, a block ends with its convolution
        last = {end: end.replace("add", f"conv{number}{suffix}") for end in ends}
    for end in ends:
        block = end.split("_conv")[0].removesuffix("_add")
        attended = f"{block}_{kind}_out"
        assert calls.inputs[end][-1] == attended and calls.consumers(attended) == [end]
        source = calls.inputs[attended][0]
        if kind == "cbam":
            assert source == f"{block}_cbam_channel_out"
            source = calls.inputs[source][0]
        assert source == last[end]
    # and nowhere else
    assert sum(layer.endswith(f"_{kind}_out") for layer in calls.inputs) == len(ends)
    assert len(ends) == {"resnet20": 9, "wrn10_1": 3, "resnet18": 8, "resnet50": 16, "vgg13_slim": 5}[name]


@pytest.mark.parametrize("kind", ["se", "cbam"])
@pytest.mark.parametrize("name", ["resnet8", "wrn10_1", "vgg13_slim"])
def test_what_a_gate_gates_comes_after_the_block_attention(name, kind, encoder):
    network = registry.build(name, 32, num_classes=10, block_attention=kind)
    sites = registry.sites(network, 8, 16)
    plain = Calls(network)
    gated = Calls(attach(network, encoder, sites))
    assert len(sites) == 2
    for site in sites:
        attended = site if site.endswith(f"_{kind}_out") else plain.inputs[site][-1]
        assert attended.endswith(f"_{kind}_out")
        # M * F and the first batch norms of R and L3 take what the site gives, and nothing else does
        assert sorted(gated.consumers(site)) == [f"gate_{site}_{x}" for x in ("attended", "l3_conv1_bn", "r_conv1_bn")]
        # and all that followed the site now follows the gate
        assert gated.consumers(f"gate_{site}_out") == plain.consumers(site)


@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_a_gate_that_does_nothing_leaves_a_network_with_block_attention_as_it_is_bit_for_bit(kind, encoder):
    network = registry.build("vgg13_slim", 32, num_classes=10, block_attention=kind)
    reference.randomise(network.variables)
    expected = network(IMAGES, training=False).numpy()
    sites = registry.sites(network, 8, 16)
    gated = attach(network, encoder, sites)
    np.testing.assert_array_equal(gated(IMAGES, training=False), expected)
