"""The gate in other people's models: where it stands, what its extractor sees, and what is said if it cannot."""

import keras
import numpy as np
import pytest
import reference
from keras import layers

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import parts
from cdc_keras.gate.sites import usable_sites
from cdc_keras.networks import autoencoder, graph, registry

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (4, 32, 32, 3)).astype("float32")
PIXELS = RNG.integers(256, size=(4, 32, 32, 3)).astype("float32")
# {class: (default sites at 32 px, images it takes)}; the ends of groups at 16x16 and 8x8.
APPLICATIONS = {
    "MobileNetV2": (["block_1_expand_BN", "block_2_add"], IMAGES),
    "EfficientNetV2B0": (["block1a_project_bn", "block2b_add"], PIXELS),
    "VGG16": (["block2_conv2", "block3_conv3"], IMAGES),
    "ResNet50V2": (["conv1_conv", "conv2_block2_out"], IMAGES),
    "ConvNeXtTiny": (["convnext_tiny_downsampling_layernorm_0"], PIXELS),
    "MobileNetV3Small": (["conv_bn", "expanded_conv_1_expand_bn"], PIXELS),
}


@pytest.fixture(scope="module")
def extractor():
    network = autoencoder.encoder(32)
    reference.randomise(network.variables)
    return network


def check(plain, extractor, images, tmp_path, sites=None, **options):
    """Returns the gated model, which starts as the plain one, trains in all its parts, saves, loads and exports."""
    expected = keras.tree.map_structure(np.asarray, plain(images, training=False))
    gated = attach(plain, extractor, sites, copy=True, **options)
    compare(np.testing.assert_array_equal, gated(images, training=False), expected)

    of_gate = [v for v in gated.trainable_variables if v.path.startswith("gate_")]
    before = [v.numpy() for v in of_gate]
    outputs = keras.tree.flatten(expected)
    gated.compile(keras.optimizers.SGD(1e-3), loss=["mse"] * len(outputs) if len(outputs) > 1 else "mse")
    targets = [np.ones_like(x) for x in outputs]
    gated.fit(images, targets if len(outputs) > 1 else targets[0], batch_size=2, epochs=2, verbose=0)
    assert of_gate and sum((v.numpy() != old).any() for v, old in zip(of_gate, before, strict=True)) > len(of_gate) / 2

    trained = keras.tree.map_structure(np.asarray, gated(images, training=False))
    assert all(np.isfinite(x).all() for x in keras.tree.flatten(trained))
    gated.save(tmp_path / "gated.keras")
    reloaded = keras.models.load_model(tmp_path / "gated.keras")
    compare(np.testing.assert_array_equal, reloaded(images, training=False), trained)
    gated.export(tmp_path / "exported", verbose=False)
    served = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")(images)
    # As one graph, convolutions and additions are fused in another order.
    compare(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), served, trained)
    return gated


def compare(assertion, ours, theirs):
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    for a, b in pairs:
        assertion(np.asarray(a), np.asarray(b))


def context_of(gated, images):
    return np.asarray(keras.Model(gated.input, gated.get_layer("extractor").output)(images, training=False))


@pytest.mark.parametrize("name", APPLICATIONS)
def test_models_of_keras_applications_start_as_they_are(name, extractor):
    """test_applications.py saves and exports them, too."""
    sites, images = APPLICATIONS[name]
    plain = getattr(keras.applications, name)(
        input_shape=(32, 32, 3), weights=None, classes=3, classifier_activation=None
    )
    gated = attach(plain, extractor)
    assert [gate.name for gate in parts(gated).sites] == sites
    np.testing.assert_array_equal(gated(images, training=False), plain(images, training=False))
    in_range = images if images is IMAGES else images / 127.5 - 1
    np.testing.assert_allclose(context_of(gated, images), extractor(in_range), atol=1e-4)


def backbone(name="backbone"):
    """A small one whose group at 8x8 ends with "end"."""
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=4, padding="same", name="down")(images)
    y = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, padding="same", name="conv")(x))
    x = layers.ReLU(name="relu")(layers.Add(name="end")([x, y]))
    return keras.Model(images, layers.Conv2D(8, 3, strides=2, padding="same", name="last")(x), name=name)


def head(x):
    return layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))


def functional_head():
    images = keras.Input((32, 32, 3))
    return keras.Model(images, head(backbone()(images)))


def frozen_backbone(augmented=False):
    """The usual transfer learning: augmentation, a frozen backbone in inference mode, a new head."""
    images, base = keras.Input((32, 32, 3)), backbone()
    base.trainable = False
    x = images
    if augmented:
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])(x)
    return keras.Model(images, head(base(x, training=False)))


def sequential_head():
    return keras.Sequential([keras.Input((32, 32, 3)), backbone(), layers.GlobalAveragePooling2D(), layers.Dense(3)])


def twice_nested():
    return keras.Sequential([keras.Input((32, 32, 3)), functional_head(), layers.Dense(2, name="last_of_all")])


@pytest.mark.parametrize("build", [functional_head, frozen_backbone, sequential_head, twice_nested])
def test_a_backbone_inside_a_model_is_gated_where_it_stands(build, extractor, tmp_path):
    plain = build()
    reference.randomise(plain.variables)
    gated = check(plain, extractor, IMAGES, tmp_path)
    assert [gate.name for gate in parts(gated).sites] == ["end"]


def test_what_was_frozen_inside_stays_frozen_and_in_inference_mode(extractor):
    plain = frozen_backbone()
    gated = attach(plain, extractor)
    assert sorted(v.path for v in gated.trainable_variables if not v.path.startswith("gate_")) == [
        "logits/bias",
        "logits/kernel",
    ]
    gated.compile("sgd", "mse")
    before = gated.get_layer("bn").get_weights()
    gated.fit(IMAGES, np.ones((4, 3)), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, gated.get_layer("bn").get_weights(), strict=True))


def test_of_an_augmented_image_the_context_is_of_what_the_network_sees(extractor):
    gated, tensors = graph.outputs(attach(frozen_backbone(augmented=True), extractor))
    source = next(layer for layer in gated.layers if isinstance(layer, layers.RandomRotation))
    seen = keras.Model(gated.inputs[0], [tensors[source.name], tensors["extractor"]])
    augmented, context = seen(IMAGES, training=True)
    assert abs(np.asarray(augmented) - IMAGES).max() > 0.1
    np.testing.assert_allclose(context, extractor(augmented, training=False), atol=1e-5)


def served(model, folder):
    model.export(folder, verbose=False)
    return np.asarray(layers.TFSMLayer(folder, call_endpoint="serve")(IMAGES))


def test_keras_exports_augmentation_turned_on_with_and_without_a_gate_unless_it_is_called_for_inference(
    extractor, tmp_path
):
    plain = frozen_backbone(augmented=True)
    reference.randomise(plain.variables)
    expected = np.asarray(plain(IMAGES, training=False))
    for name, model in {"plain": plain, "gated": attach(plain, extractor)}.items():
        assert abs(served(model, tmp_path / name) - expected).max() > 1e-2 * abs(expected).max()
        images = keras.Input((32, 32, 3))
        inference = keras.Model(images, model(images, training=False))
        error = abs(served(inference, tmp_path / f"{name}_inference") - expected).max()
        assert error < 1e-5 * abs(expected).max()


def leading(*stack):
    """A model that begins with these layers."""
    return keras.Sequential(
        [keras.Input((32, 32, 3)), *stack, layers.Conv2D(4, 3, strides=4, padding="same", name="site")]
    )


def imagenet(scale, shift=0.0):
    mean = [scale * m + shift for m in registry.IMAGENET_MEAN]
    return layers.Normalization(mean=mean, variance=[(scale * s) ** 2 for s in registry.IMAGENET_STD])


@pytest.mark.parametrize(
    ("stack", "low", "high"),
    [
        ([], -1, 1),
        ([layers.Rescaling(1 / 255)], 0, 255),
        ([layers.Rescaling(1 / 127.5, offset=-1)], 0, 255),
        ([layers.Rescaling(1 / 128, offset=-1)], 0, 255),
        ([layers.Rescaling(2.0, offset=-1)], 0, 1),
        ([layers.Rescaling(0.5, offset=0.5)], -1, 1),
        ([layers.Rescaling(1 / 255), imagenet(1)], 0, 255),
        ([imagenet(255)], 0, 255),
        ([imagenet(1)], 0, 1),
        ([imagenet(2, -1)], -1, 1),
        ([layers.RandomFlip(), layers.Rescaling(1 / 255)], 0, 255),
    ],
    ids=str,
)
def test_the_extractor_sees_the_images_in_its_own_range(stack, low, high, extractor):
    gated = attach(leading(*stack), extractor)
    images = RNG.uniform(low, high, (2, 32, 32, 3)).astype("float32")
    expected = np.asarray(extractor((images - low) / (high - low) * 2 - 1))
    np.testing.assert_allclose(context_of(gated, images), expected, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Rescaling(1 / 17)],
        [layers.Rescaling([1 / 255, 1 / 255, 1 / 127.5])],
        [layers.Normalization(mean=[5.0, 5.0, 5.0], variance=[1.0, 1.0, 1.0])],
        [layers.Normalization()],
    ],
)
def test_a_range_that_is_unclear_is_asked_for(stack, extractor):
    with pytest.raises(ValueError, match="does not tell the range of its images; give to_context_input"):
        attach(leading(*stack), extractor)
    attach(leading(*stack), extractor, to_context_input=layers.Rescaling(1 / 127.5, offset=-1))


def test_arithmetic_in_front_is_asked_about_too(extractor):
    images = keras.Input((32, 32, 3))
    plain = keras.Model(images, layers.Conv2D(4, 3, strides=4, name="site", padding="same")(images / 127.5 - 1.0))
    with pytest.raises(ValueError, match="begins with '.*', which does not tell the range of its images"):
        attach(plain, extractor)


def test_a_model_of_any_size_that_resizes_first_is_gated(extractor, tmp_path):
    images = keras.Input((None, None, 3))
    plain = keras.Model(images, head(backbone()(layers.Resizing(32, 32)(images))))
    gated = check(plain, extractor, RNG.uniform(-1, 1, (4, 48, 40, 3)).astype("float32"), tmp_path)
    assert [gate.name for gate in parts(gated).sites] == ["end"]


def test_several_outputs_are_gated_alike(extractor, tmp_path):
    base = backbone()
    reference.randomise(base.variables)
    plain = keras.Model(base.input, [head(base.output), layers.GlobalMaxPooling2D(name="max")(base.output)])
    gated = check(plain, extractor, IMAGES, tmp_path)
    assert [gate.name for gate in parts(gated).sites] == ["end"] and len(gated.outputs) == 2


def fused():
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=4, padding="same", activation="relu", name="site")(images)
    return keras.Model(images, x)


def test_a_fused_activation_is_split_so_that_the_gate_stands_before_it(extractor):
    plain = fused()
    gated = attach(plain, extractor, ["site"], init="he", compatibility="sum")
    reference.randomise([v for v in gated.variables if v.path.startswith("gate_")])
    kernel, bias = plain.get_layer("site").get_weights()
    bare = layers.Conv2D(8, 3, strides=4, padding="same")
    bare.build((None, 32, 32, 3))
    bare.set_weights([kernel, bias])
    features = np.asarray(bare(IMAGES))
    assert (features < 0).any()
    summed = reference.gate(features, np.asarray(extractor(IMAGES)), "gate_site", reference.by_layer(gated))
    expected = reference.relu(summed)
    assert abs(np.asarray(gated(IMAGES, training=False)) - expected).max() < 1e-5 * abs(expected).max()


def test_after_relu_a_fused_activation_is_left_where_it_is(extractor):
    plain = fused()
    gated = attach(plain, extractor, ["site"], after_relu=True)
    assert gated.get_layer("site") is plain.get_layer("site")
    np.testing.assert_array_equal(gated(IMAGES, training=False), plain(IMAGES, training=False))


@pytest.mark.parametrize(
    ("name", "attention"),
    [("vgg13_slim", "none"), ("vgg13_slim", "cbam"), ("resnet8", "se"), ("wrn10_1", "cbam"), ("resnet18", "none")],
)
def test_the_default_sites_of_our_networks_are_the_papers(name, attention, extractor):
    plain = registry.build(name, 32, num_classes=3, block_attention=attention)
    assert [gate.name for gate in parts(attach(plain, extractor)).sites] == registry.sites(plain, 16, 8)


def test_usable_sites_begin_with_the_default_ones_and_leave_out_what_no_gate_should_follow(extractor):
    sites = usable_sites(registry.build("vgg13_slim", 32, num_classes=10), extractor)
    names = [site.name for site in sites]
    assert names[:2] == ["block2_conv2_bn", "block3_conv2_bn"]
    assert sites[0] == ("block2_conv2_bn", 16, 16, 32, True)
    assert "block5_conv1_bn" in names and not {"pool", "logits", "images", "block2_conv2_act", "block5_conv1"} & set(
        names
    )
    assert [site.ends_group for site in sites] == sorted((site.ends_group for site in sites), reverse=True)


def test_operations_and_layers_applied_twice_are_no_sites(extractor):
    images, shared = keras.Input((32, 32, 3)), layers.Conv2D(8, 3, padding="same", name="shared")
    x = layers.Conv2D(8, 3, strides=4, padding="same", name="site")(images)
    plain = keras.Model(images, keras.ops.sin(shared(shared(x)) + x))
    assert [site.name for site in usable_sites(plain, extractor)] == ["site"]
    with pytest.raises(ValueError, match="'shared' is applied more than once.*best first: site$"):
        attach(plain, extractor, ["shared"])
    operation = next(x.name for x in plain.operations if "sin" in x.name)
    with pytest.raises(ValueError, match=f"{operation!r} is an operation"):
        attach(plain, extractor, [operation])


def test_a_model_of_one_channel_is_told_so(extractor):
    images = keras.Input((32, 32, 1))
    plain = keras.Model(images, layers.Conv2D(4, 3, strides=4, padding="same", name="site")(images))
    with pytest.raises(ValueError, match="takes images of 1 channels and the extractor of 3"):
        attach(plain, extractor)


def test_a_model_of_images_of_any_size_is_told_which_size_to_take(extractor):
    images = keras.Input((None, None, 3))
    plain = keras.Model(images, layers.Conv2D(4, 3, name="site")(images))
    with pytest.raises(ValueError, match=r"images of any size; build it for the extractor's \(32, 32, 3\)"):
        attach(plain, extractor)
    with pytest.raises(ValueError, match="images of any size, so reduction has no default; give it"):
        attach(plain, None, ["site"], attention=False)
    gated = attach(plain, None, ["site"], attention=False, reduction=2)
    np.testing.assert_array_equal(gated(IMAGES, training=False), plain(IMAGES, training=False))


def test_channels_first_is_told(extractor):
    images = keras.Input((3, 32, 32))
    plain = keras.Model(images, layers.Flatten()(images))
    with pytest.raises(ValueError, match=r"images \(B, H, W, C\), channels last; this one takes \(None, 3, 32, 32\)"):
        attach(plain, extractor)


def test_two_inputs_or_two_layers_of_one_name_are_told(extractor):
    images, other = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match="one image input; this one has 2"):
        attach(keras.Model([images, other], layers.Add()([images, other])), extractor)
    plain = keras.Model(images, layers.Add()([backbone("a")(images), backbone("b")(images)]))
    with pytest.raises(ValueError, match="the models inside this one have several layers named 'bn'"):
        attach(plain, extractor)


def test_a_gated_model_is_not_gated_again(extractor):
    gated = attach(functional_head(), extractor)
    with pytest.raises(ValueError, match="gated already"):
        attach(gated, extractor)
    with pytest.raises(ValueError, match="gated already"):
        attach(keras.Sequential([keras.Input((32, 32, 3)), gated]), extractor)


def test_without_a_usable_site_it_is_said_what_to_do(extractor):
    images = keras.Input((32, 32, 3))
    plain = keras.Model(images, layers.Conv2D(4, 3, strides=3, name="odd")(images))
    with pytest.raises(ValueError, match="no layer of .* works at a whole multiple or fraction of T's 8x8; take"):
        attach(plain, extractor)


def test_without_a_context_sites_have_to_be_named():
    with pytest.raises(ValueError, match="without a context there is no resolution to choose sites by; name them"):
        attach(functional_head(), None, attention=False)
