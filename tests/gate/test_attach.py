"""The gate: its equations against NumPy, what it leaves alone, and the networks it goes into."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import parts
from cdc_keras.networks import autoencoder, registry

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (3, 32, 32, 3)).astype("float32")
CONTEXT_CHANNELS = 5


def small_extractor():
    """T (B, 8, 8, 5) of 32 px images: what the gate needs of an extractor, and cheap."""
    images = keras.Input((32, 32, 3))
    x = layers.AveragePooling2D(4)(images)
    return keras.Model(images, layers.Conv2D(CONTEXT_CHANNELS, 3, padding="same", activation="relu")(x))


def features_model(stride, relu=False):
    """F (B, 32 / stride, 32 / stride, 8) of 32 px images, the output of the layer "site"."""
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=stride, padding="same", name="site")(images)
    return keras.Model(images, layers.ReLU(name="site_relu")(x) if relu else x)


def gate_variables(gated, plain):
    extractors = [layer for layer in gated.layers if layer.name == "extractor"]
    others = {id(v) for part in (plain, *extractors) for v in part.variables}
    return [v for v in gated.variables if id(v) not in others]


def randomised_gate(plain, extractor, **arguments):
    printed = {"init": "he", "compatibility": "sum"}
    gated = attach(plain, extractor, ["site"], **printed | arguments)
    reference.randomise(gate_variables(gated, plain))
    return gated


def assert_close(got, expected):
    # float32 against float64 through a dozen layers: an error of some 2**-24 of the largest term of every sum, so the
    # tolerance is relative to the largest value and not to each.
    error = abs(np.asarray(got) - expected).max() / abs(expected).max()
    assert error < 1e-6, f"largest error {error:.1e} of the largest value"


@pytest.mark.parametrize("stride", [4, 2, 8], ids=["at T's resolution", "up-sampled x2", "average-pooled"])
@pytest.mark.parametrize(
    ("arguments", "of_reference"),
    [
        ({}, {}),
        ({"reduction": 4}, {}),
        ({"residual": False}, {"residual": False}),
        ({"attention": False}, {"attend": False}),
        ({"compatibility": "none"}, {"compatible": False}),
        ({"compatibility": "mean"}, {"reduce": np.mean}),
        ({"init": "neutral"}, {"scale": 2.0}),
        ({"init": "centred"}, {"scale": 2.0, "of": lambda z: 2 * reference.sigmoid(z)}),
        ({"init": "identity"}, {"scale": 2.0, "of": lambda z: reference.sigmoid(z + 3) / reference.sigmoid(3)}),
    ],
    ids=lambda value: ",".join(key if callable(x) else f"{key} {x}" for key, x in value.items()) or "as printed",
)
def test_the_gate_computes_equations_3_to_5(stride, arguments, of_reference):
    plain, extractor = features_model(stride), small_extractor()
    gated = randomised_gate(plain, extractor, **arguments)
    features, context = plain(IMAGES).numpy(), extractor(IMAGES).numpy()
    expected = reference.gate(features, context, "gate_site", reference.by_layer(gated), **of_reference)
    assert_close(gated(IMAGES, training=False), expected)


def test_the_relu_of_equation_5_is_the_one_that_the_network_has_behind_the_site():
    plain, extractor = features_model(2, relu=True), small_extractor()
    gated = randomised_gate(plain, extractor)
    features = keras.Model(plain.input, plain.get_layer("site").output)(IMAGES).numpy()
    summed = reference.gate(features, extractor(IMAGES).numpy(), "gate_site", reference.by_layer(gated))
    assert (summed < 0).mean() > 0.1
    assert_close(gated(IMAGES, training=False), reference.relu(summed))


def test_the_reference_is_tried_where_attention_and_compatibility_are_neither_0_nor_1():
    plain, extractor = features_model(2), small_extractor()
    weights = reference.by_layer(randomised_gate(plain, extractor))
    context = extractor(IMAGES).numpy().astype("float64")
    m, embedded = reference.attention(context, weights), reference.embedded_context(context, weights)
    c = reference.compatibility(plain(IMAGES).numpy(), reference.at_size(embedded, 16), "gate_site", weights)
    assert m.std() > 0.02 and ((c > 0.05) & (c < 0.95)).mean() > 0.2


def test_after_relu_gates_what_the_relu_gives():
    plain, extractor = features_model(4, relu=True), small_extractor()
    gated = randomised_gate(plain, extractor, after_relu=True)
    features, context = plain(IMAGES).numpy(), extractor(IMAGES).numpy()
    expected = reference.relu(reference.gate(features, context, "gate_site_relu", reference.by_layer(gated)))
    assert_close(gated(IMAGES, training=False), expected)


def test_two_sites_share_one_m_and_one_me():
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="site16")(images)
    plain = keras.Model(images, layers.Conv2D(8, 3, strides=2, padding="same", name="site8")(x))
    gated = attach(plain, small_extractor(), ["site16", "site8"])
    assert sum(layer.name.startswith("gate_l1_conv1") for layer in gated.layers) == 3  # convolution, BN, ReLU
    assert {"gate_attention_16x16", "gate_embedded_context_16x16"} <= {layer.name for layer in gated.layers}


@pytest.mark.parametrize("name", ["vgg13_slim", "resnet20"])
def test_with_r_0_m_1_and_c_1_the_network_is_the_plain_one_bit_for_bit(name):
    plain = registry.build(name, 32, num_classes=10)
    reference.randomise(plain.variables)
    expected = plain(IMAGES, training=False).numpy()
    gated = attach(plain, autoencoder.encoder(32), registry.sites(plain, 8, 16), init="neutral")
    # "neutral" has R = 0 and C = 2 * sigmoid(0), which is exactly 1; M is sigmoid(100), 1 in float32.
    bn = gated.get_layer("gate_l1_conv2_bn")
    bn.gamma.assign([0.0])
    bn.beta.assign([100.0])
    np.testing.assert_array_equal(gated(IMAGES, training=False).numpy(), expected)


@pytest.mark.parametrize("stride", [4, 2, 8])
def test_a_neutral_gate_starts_within_a_tenth_of_the_plain_network(stride):
    plain = features_model(stride)
    gated = attach(plain, small_extractor(), ["site"], init="neutral")
    features = plain(IMAGES).numpy()
    # R = 0 and C = 1 exactly. Batch norm makes M sigmoid(3 + z), z of mean 0 and variance 1 whatever the weights are:
    # 1 - M has a root mean square of about 0.085 for a normal z.
    change = np.linalg.norm(gated(IMAGES, training=True) - features) / np.linalg.norm(features)
    assert 0.02 < change < 0.12


@pytest.mark.parametrize("name", ["vgg13_slim", "resnet20"])
def test_a_centred_gate_starts_as_the_plain_network_bit_for_bit(name):
    plain = registry.build(name, 32, num_classes=10)
    reference.randomise(plain.variables)
    expected = plain(IMAGES, training=False).numpy()
    gated = attach(plain, autoencoder.encoder(32), registry.sites(plain, 8, 16), init="centred")
    np.testing.assert_array_equal(gated(IMAGES, training=False).numpy(), expected)  # 2 * sigmoid(0) is exactly 1


def test_a_shuffled_context_is_that_of_the_image_before():
    plain, extractor = features_model(2), small_extractor()
    maps = []
    for shuffled in (False, True):
        gated = randomised_gate(plain, extractor, shuffle_context=shuffled)
        maps.append(keras.Model(gated.input, gated.get_layer("gate_attention").output)(IMAGES, training=False).numpy())
    np.testing.assert_allclose(maps[1], np.roll(maps[0], 1, axis=0), rtol=1e-6)
    assert abs(maps[1] - maps[0]).max() > 1e-3


def test_fit_leaves_the_extractor_bit_identical_and_moves_every_gate_weight():
    features, extractor = features_model(2, relu=True), autoencoder.encoder(32)
    plain = keras.Model(features.input, layers.Dense(10)(layers.GlobalAveragePooling2D()(features.output)))
    reference.randomise(extractor.variables)
    gated = attach(plain, extractor, ["site"])
    gated.trainable = False
    gated.trainable = True
    of_gate, frozen = gate_variables(gated, plain), gated.get_layer("extractor").variables
    gate_before, frozen_before = ([v.numpy() for v in variables] for variables in (of_gate, frozen))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gated.compile(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1), loss)
    gated.fit(np.tile(IMAGES, (8, 1, 1, 1)), np.arange(24) % 10, batch_size=8, epochs=1, verbose=0)
    for v, before in zip(frozen, frozen_before, strict=True):
        np.testing.assert_array_equal(v.numpy(), before, err_msg=v.path)
    stuck = [v.path for v, before in zip(of_gate, gate_before, strict=True) if (v.numpy() == before).all()]
    assert of_gate and len(frozen) == len(extractor.variables) and not stuck


def test_the_extractor_stays_frozen_when_the_network_inside_it_is_made_trainable_again():
    plain, extractor = features_model(4), small_extractor()
    gated = attach(plain, extractor, ["site"])
    count = len(gated.trainable_variables)
    extractor.trainable = True  # say, because its own training goes on
    assert len(gated.trainable_variables) == count


def test_every_trainable_weight_gets_a_gradient():
    plain = registry.build("resnet20", 32, num_classes=10)
    # A gate that starts as the identity has none in front of its zeros until these have moved.
    gated = attach(plain, autoencoder.encoder(32), registry.sites(plain, 8, 16), init="he")
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(np.arange(3), gated(IMAGES, training=True), from_logits=True)
        )
    gradients = tape.gradient(loss, [v.value for v in gated.trainable_variables])
    pairs = list(zip(gated.trainable_variables, gradients, strict=True))
    assert not [v.path for v, gradient in pairs if gradient is None or not np.any(gradient)]


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("nowhere", "no layer 'nowhere'"),
        ("logits", "'logits' gives .*not a feature map"),
        ("odd", "'odd' works at 12x12, which is no whole multiple or fraction of the context's 8x8"),
    ],
)
def test_an_impossible_site_is_an_error_listing_the_usable_ones(site, message):
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="good")(images)
    x = layers.Conv2D(4, 5, name="odd")(x)
    plain = keras.Model(images, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x)))
    with pytest.raises(ValueError, match=f"{message}.*usable sites, best first: good$"):
        attach(plain, small_extractor(), [site])


def test_no_site_at_all_is_an_error_listing_the_usable_ones():
    with pytest.raises(ValueError, match="name at least one site; usable sites, best first: site"):
        attach(features_model(4), small_extractor(), [])


def test_an_extractor_of_another_image_size_is_an_error():
    with pytest.raises(ValueError, match="128x128 px, the model 32x32 px"):
        attach(features_model(4), autoencoder.encoder(128), ["site"])


def test_a_subclassed_model_is_an_error():
    class Subclassed(keras.Model):
        pass

    subclassed = Subclassed()
    with pytest.raises(TypeError, match="expected a functional keras.Model"):
        attach(subclassed, None, ["site"], attention=False)


def test_a_gate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="leave one of them on"):
        attach(features_model(4), small_extractor(), ["site"], residual=False, attention=False)


def test_a_post_activation_network_keeps_its_relu_as_the_only_one():
    plain = registry.build("resnet20", 32, num_classes=10)
    sites = registry.sites(plain, 8, 16)
    assert sites == ["stage2_block3_add", "stage3_block3_add"]
    gated = attach(plain, autoencoder.encoder(32), sites)
    assert {gated.get_layer(f"gate_{site}_out").activation.__name__ for site in sites} == {"linear"}


def test_a_relu_that_is_a_plain_operation_is_the_only_one_too():
    images = keras.Input((32, 32, 3))
    plain = keras.Model(images, keras.ops.relu(layers.Conv2D(8, 3, strides=4, padding="same", name="site")(images)))
    gated = attach(plain, small_extractor(), ["site"])
    assert gated.get_layer("gate_site_out").activation.__name__ == "linear"


@pytest.mark.parametrize("name", ["wrn10_1", "preresnet110"])
def test_where_no_relu_follows_the_gate_adds_none(name):
    """In a pre-activation network it is behind the next block's batch norm, and the shortcut goes past it."""
    plain = registry.build(name, 32, num_classes=10)
    gated = attach(plain, autoencoder.encoder(32))
    reference.randomise(gated.variables)
    assert [gate.name for gate in parts(gated).sites] == registry.sites(plain, 16, 8)
    out = keras.Model(gated.input, [gated.get_layer(gate.out).output for gate in parts(gated).sites])
    assert all(float(tf.reduce_min(x)) < 0 for x in out(IMAGES, training=False))


def test_after_relu_without_a_relu_is_an_error():
    with pytest.raises(ValueError, match="no ReLU follows layer 'site', so it cannot be gated after ReLU"):
        attach(features_model(4), small_extractor(), ["site"], after_relu=True)


def test_after_relu_with_a_relu_used_twice_is_our_error_and_not_keras():
    images, relu = keras.Input((32, 32, 3)), layers.ReLU(name="shared_relu")
    x = relu(layers.Conv2D(8, 3, strides=4, padding="same", name="first")(images))
    plain = keras.Model(images, relu(layers.Conv2D(8, 3, padding="same", name="site")(x)))
    with pytest.raises(ValueError, match="'shared_relu' is applied more than once"):
        attach(plain, small_extractor(), ["site"], after_relu=True)


def test_a_network_that_takes_pixels_hands_the_extractor_its_own_range():
    images = keras.Input((32, 32, 3), name="pixels")
    x = layers.Rescaling(1 / 255)(images)
    plain = keras.Model(images, layers.Conv2D(8, 3, strides=4, padding="same", name="site")(x))
    extractor = small_extractor()
    gated = randomised_gate(plain, extractor, to_context_input=layers.Rescaling(1 / 127.5, offset=-1.0))
    pixels = RNG.integers(256, size=(3, 32, 32, 3)).astype("float32")
    context = extractor(pixels / np.float32(127.5) - 1).numpy()
    expected = reference.gate(plain(pixels).numpy(), context, "gate_site", reference.by_layer(gated))
    assert_close(gated(pixels, training=False), expected)


@pytest.mark.parametrize("as_list", [False, True], ids=["Sequential", "a list of one input"])
def test_a_model_of_one_input_is_gated_however_it_was_built(as_list):
    stack = [layers.Conv2D(8, 3, strides=4, padding="same", name="site"), layers.ReLU(), layers.Flatten()]
    plain = keras.Sequential([keras.Input((32, 32, 3)), *stack])
    if as_list:
        plain = keras.Model(plain.inputs, plain.outputs[0])
    gated = attach(plain, small_extractor(), ["site"])
    assert gated.output.shape == (None, 8 * 8 * 8)


def test_a_saved_gated_network_reloads_with_identical_outputs(tmp_path):
    plain = registry.build("resnet20", 32, num_classes=10)
    gated = attach(plain, autoencoder.encoder(32), registry.sites(plain, 8, 16))
    reference.randomise(gated.variables)
    gated.save(tmp_path / "gated.keras")
    reloaded = keras.models.load_model(tmp_path / "gated.keras")
    np.testing.assert_array_equal(reloaded(IMAGES, training=False), gated(IMAGES, training=False))
    reloaded.trainable = True
    assert len(reloaded.trainable_variables) == len(gated.trainable_variables)
