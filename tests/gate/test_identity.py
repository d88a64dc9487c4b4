"""A gate that has not learnt yet changes nothing: not one bit of what the plain network answers."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
from keras import layers

from cdc_keras import zoo
from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import parts
from cdc_keras.gate.sites import usable_sites
from cdc_keras.networks import autoencoder, registry

IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
NETWORKS = ("vgg13_slim", "resnet20", "wrn10_1")


def spread(sites, count):
    """`count` of the sites, from all over the network."""
    return [sites[i].name for i in np.linspace(0, len(sites) - 1, count).astype(int)]


@pytest.fixture(scope="module", params=[*NETWORKS, "zoo:cifar100_resnet20", "zoo:cifar100_resnet32"])
def plain(request):
    """A network and what it answers; those of the zoo are trained, the others have weights that no default hides."""
    if request.param.startswith("zoo:"):
        network = zoo.load(request.param.removeprefix("zoo:"))
    else:
        network = registry.build(request.param, 32, num_classes=10)
        reference.randomise(network.variables)
    return network, network(IMAGES, training=False).numpy()


@pytest.fixture(scope="module")
def extractor():
    return zoo.load("cifar100")


@pytest.mark.parametrize("count", [1, 2, 10])
def test_the_gated_network_answers_as_the_plain_one_bit_for_bit(plain, extractor, count):
    network, expected = plain
    gated = attach(network, extractor, spread(usable_sites(network, extractor), count))
    assert len(parts(gated).sites) == count
    np.testing.assert_array_equal(gated(IMAGES, training=False), expected)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_compiled_too_it_answers_bit_for_bit(plain, extractor, count):
    network, _ = plain
    gated = attach(network, extractor, spread(usable_sites(network, extractor), count))
    np.testing.assert_array_equal(gated.predict(IMAGES, verbose=0), network.predict(IMAGES, verbose=0))


@pytest.mark.long
def test_with_onednn_it_answers_bit_for_bit():
    """Of some processors it is TensorFlow's default; it computes a convolution and its batch norm in one."""
    command = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "compiled_too"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"})
    assert done.returncode == 0 and done.stdout.startswith("." * 15), done.stdout


def test_a_convolution_before_its_batch_norm_is_listed_as_no_site_but_is_gated_by_name(extractor):
    network = registry.build("resnet8", 32, num_classes=10)
    names = {site.name for site in usable_sites(network, extractor)}
    assert "stage1_block1_conv1_bn" in names and "stage1_block1_conv1" not in names
    gated = attach(network, extractor, "stage1_block1_conv1")
    assert [gate.name for gate in parts(gated).sites] == ["stage1_block1_conv1"]
    np.testing.assert_array_equal(gated(IMAGES, training=False), network(IMAGES, training=False))


def test_without_context_r_alone_starts_as_the_identity_too(plain):
    network, expected = plain
    sites = [site.name for site in usable_sites(network, autoencoder.encoder(32))[:2]]
    gated = attach(network, None, sites, attention=False)
    np.testing.assert_array_equal(gated(IMAGES, training=False), expected)


def test_in_training_mode_it_answers_as_the_plain_one_too(extractor):
    """But for the statistics of its own batch norms, which see what they normalise and change nothing."""
    network = registry.build("resnet8", 32, num_classes=10)
    expected = network(IMAGES, training=True).numpy()
    np.testing.assert_array_equal(attach(network, extractor)(IMAGES, training=True), expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_it_starts_as_the_identity_too(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = registry.build("resnet8", 32, num_classes=10)
        gated = attach(network, autoencoder.encoder(32))
        np.testing.assert_array_equal(gated(IMAGES, training=False), network(IMAGES, training=False))
    finally:
        keras.config.set_dtype_policy(before)


def test_m_starts_at_1_and_moves_both_ways_upwards_by_a_twentieth_at_most(extractor):
    network = registry.build("resnet8", 32, num_classes=10)
    gated = attach(network, extractor)
    m = keras.Model(gated.input, gated.get_layer(parts(gated).attention).output)
    assert (m(IMAGES, training=False).numpy() == 1).all()
    batch_norm = gated.get_layer("gate_l1_conv2_bn")
    batch_norm.gamma.assign([30.0])
    moved = m(IMAGES, training=True).numpy()
    assert moved.min() < 0.1 and 1.04 < moved.max() <= 1 + np.exp(-3) + 1e-6


def test_a_copy_leaves_the_plain_network_as_it_is_while_it_trains(extractor):
    network = registry.build("resnet8", 32, num_classes=10)
    before = network.get_weights()
    gated = attach(network, extractor, copy=True)
    np.testing.assert_array_equal(gated(IMAGES, training=False), network(IMAGES, training=False))
    gated.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    gated.fit(IMAGES, np.arange(4), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    assert (gated(IMAGES, training=False).numpy() != network(IMAGES, training=False).numpy()).any()


def test_without_a_copy_the_plain_network_is_trained_along(extractor):
    network = registry.build("resnet8", 32, num_classes=10)
    before = network.get_layer("stem").get_weights()[0]
    gated = attach(network, extractor)
    gated.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    gated.fit(IMAGES, np.arange(4), verbose=0)
    assert (network.get_layer("stem").get_weights()[0] != before).any()


def test_average_pooled_m_is_exactly_1_at_every_factor():
    images = keras.Input((32, 32, 3))
    x, names = layers.AveragePooling2D(4, name="start")(images), []
    for size in (8, 4, 2, 1):
        names.append(f"site{size}")
        x = layers.Conv2D(4, 3, padding="same", name=names[-1])(x)
        x = layers.AveragePooling2D(2, name=f"pool{size}")(x) if size > 1 else x
    network = keras.Model(images, x)
    gated = attach(network, autoencoder.encoder(32), names)
    np.testing.assert_array_equal(gated(IMAGES, training=False), network(IMAGES, training=False))
