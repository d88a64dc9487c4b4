"""The counts that pin the architecture, and the counter itself against closed forms."""

import pathlib

import keras
import pytest
from keras import layers

from cdc_keras import complexity
from cdc_keras.gate.attach import attach
from cdc_keras.markdown import markdown_table
from cdc_keras.networks import autoencoder, registry

ROOT = pathlib.Path(__file__).resolve().parents[1]


def model_of(*stack, shape=(8, 6, 4)):
    return keras.Sequential([keras.Input(shape), *stack])


@pytest.fixture(scope="module")
def encoder():
    return autoencoder.encoder(32)


@pytest.fixture(scope="module")
def resnet32():
    return registry.build("resnet32", 32, num_classes=1000)


@pytest.fixture(scope="module")
def gated_resnet32(resnet32):
    return attach(resnet32, autoencoder.encoder(32), registry.sites(resnet32, 8, 16))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(5, 3, padding="same"), (3 * 3 * 4 * 5) * 8 * 6),
        (layers.Conv2D(5, (3, 2), padding="valid"), (3 * 2 * 4 * 5) * 6 * 5),
        (layers.Conv2D(5, 3, strides=2, padding="same"), (3 * 3 * 4 * 5) * 4 * 3),
        (layers.Conv2D(5, 3, dilation_rate=2, padding="same"), (3 * 3 * 4 * 5) * 8 * 6),
        (layers.Conv2D(6, 3, groups=2, padding="same"), 2 * (3 * 3 * 2 * 3) * 8 * 6),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (3 * 3 * 4 * 2) * 8 * 6),
        (layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same"), (3 * 3 * 4 * 2 + 4 * 2 * 5) * 8 * 6),
        (layers.Conv2DTranspose(5, 4, strides=2, padding="same"), (4 * 4 * 4 * 5) * 8 * 6),
        (layers.Dense(7), 4 * 7 * 8 * 6),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(2), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_a_layer_costs_its_closed_form(layer, expected):
    assert complexity.macs(model_of(layer)) == expected


def test_a_dense_layer_on_features_costs_inputs_times_units():
    assert complexity.macs(model_of(layers.Flatten(), layers.Dense(10))) == 8 * 6 * 4 * 10


def test_a_layer_applied_twice_costs_twice():
    images, shared = keras.Input((8, 6, 4)), layers.Conv2D(4, 3, padding="same")
    once = (3 * 3 * 4 * 4) * 8 * 6
    assert complexity.macs(keras.Model(images, shared(shared(images)))) == 2 * once


def test_a_nested_model_costs_what_it_does_on_the_size_it_is_called_with():
    conv = layers.Conv2D(5, 3, padding="same", name="conv")
    inner = keras.Sequential([keras.Input((None, None, 4)), conv], name="in")
    assert complexity.macs_by_layer(model_of(inner)) == {"in/conv": (3 * 3 * 4 * 5) * 8 * 6}


def test_a_layer_with_matrices_that_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="'mystery', a Conv1D, cannot be counted"):
        complexity.macs(model_of(layers.Conv1D(5, 3, name="mystery"), shape=(8, 4)))


def test_a_nested_subclassed_model_is_an_error_and_not_nothing():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.dense = layers.Dense(3)

        def call(self, features):
            return self.dense(features)

    with pytest.raises(ValueError, match="'subclassed', a Subclassed, cannot be counted"):
        complexity.macs(model_of(Subclassed()))


def test_an_open_image_size_is_an_error():
    with pytest.raises(ValueError, match="'conv'.*whose size is unknown"):
        complexity.macs(model_of(layers.Conv2D(5, 3, name="conv"), shape=(None, None, 4)))


def test_products_of_multiply_count_only_if_asked_for():
    images = keras.Input((8, 6, 4))
    model = keras.Model(images, layers.Multiply()([images, images, layers.GlobalMaxPooling2D(keepdims=True)(images)]))
    assert complexity.macs(model) == 0
    assert complexity.macs(model, products=True) == 2 * (8 * 6 * 4)


def test_a_shared_kernel_is_one_set_of_weights():
    images, shared = keras.Input((8, 6, 4)), layers.Conv2D(4, 3, padding="same")
    assert complexity.conv_weights(keras.Model(images, shared(shared(images)))) == 3 * 3 * 4 * 4


def test_parameters_leave_out_batch_norm_statistics():
    model = model_of(layers.Conv2D(5, 3), layers.BatchNormalization())
    assert complexity.parameters(model) == (3 * 3 * 4 * 5 + 5) + (5 + 5)


def test_e1_costs_the_papers_7_21m(encoder):
    e1 = keras.Model(encoder.input, encoder.get_layer("e1_conv4_act").output)
    assert complexity.macs(e1) == 7_208_960


def test_the_extractor_costs_9_83m(encoder):
    assert complexity.macs(encoder) == 9_830_400


def test_the_planes_of_a_decoder_cost_what_their_channels_would_in_its_convolutions():
    counts = complexity.macs_by_layer(autoencoder.decoder(32, (8, 8, 64), num_classes=10))
    # (kernel, width, pixels of the input), ten planes each; a transposed one meets the kernel from every input pixel
    of_planes = [
        10 * kernel**2 * width * pixels**2
        for kernel, width, pixels in ((3, 64, 8), (4, 32, 8), (3, 32, 16), (4, 3, 16))
    ]
    assert [counts[f"g2_conv{i}_condition"] for i in (1, 2, 3, 4)] == of_planes


def test_the_extractor_holds_342528_convolution_weights(encoder):
    assert complexity.conv_weights(encoder) == 342_528


def test_extractor_and_embedding_of_1000_categories_hold_353544_parameters(encoder):
    decoder = autoencoder.decoder(32, (8, 8, 64), num_classes=1000)
    embedding = sum(complexity.parameters(decoder.get_layer(f"condition_dense{i}")) for i in (1, 2))
    assert embedding == (1000 * 10 + 10) + (10 * 10 + 10)
    assert complexity.parameters(encoder) + embedding == 353_544


def test_the_gate_of_resnet32_holds_33784_convolution_weights(gated_resnet32, resnet32, encoder):
    counts = [complexity.conv_weights(model) for model in (gated_resnet32, resnet32, encoder)]
    assert counts[0] - counts[1] - counts[2] == 33_784


def test_r_and_l3_of_resnet32_cost_3407872(gated_resnet32):
    counts = complexity.macs_by_layer(gated_resnet32)
    assert sum(count for name, count in counts.items() if "_r_conv" in name or "_l3_conv" in name) == 3_407_872


def test_l1_and_l2_run_once_at_8x8(gated_resnet32):
    counts = complexity.macs_by_layer(gated_resnet32)
    assert sum(count for name, count in counts.items() if name.startswith(("gate_l1_", "gate_l2_"))) == 504 * 8 * 8


def test_the_gate_of_resnet32_costs_its_parts_and_not_the_extractor(gated_resnet32, resnet32):
    assert complexity.gate_macs(gated_resnet32, resnet32) == 3_407_872 + 504 * 8 * 8


def test_the_gates_products_are_one_dot_product_and_two_multiplications_per_value(gated_resnet32, resnet32):
    values = 16 * 16 * 32 + 8 * 8 * 64
    without = complexity.gate_macs(gated_resnet32, resnet32)
    assert complexity.gate_macs(gated_resnet32, resnet32, products=True) == without + 3 * values


def test_the_extractor_in_a_gated_network_costs_what_it_does_alone(gated_resnet32, encoder):
    counts = complexity.macs_by_layer(gated_resnet32)
    assert sum(count for name, count in counts.items() if name.startswith("extractor/")) == complexity.macs(encoder)


# (parameters, multiply-adds) by title and pixels, at the digits that are published. VGG and ResNet at 32 px follow from
# their definitions. ResNets of 10 classes: He et al. 2015a, Table 6; WRN: Zagoruyko & Komodakis 2016; pre-activation:
# He et al. 2016, Table 3; the ResNets of ImageNet, SE and CBAM: Woo et al. 2018, Table 4; ResNet-152: He et al. 2015a,
# Table 1.
PUBLISHED = {
    ("vgg13", 32): ("9,416,010", "228.27M"),
    ("vgg16", 32): ("14,728,266", "313.20M"),
    ("resnet20", 32): ("0.27M", None),
    ("resnet32", 32): ("528,504", "68.93M"),
    ("resnet56", 32): ("917,368", "125.55M"),
    ("resnet110", 32): ("1,792,312", "252.95M"),
    ("preresnet110", 32): ("1.7M", None),
    ("preresnet164", 32): ("1.7M", None),
    ("wrn16_10", 32): ("17,116,634", "2.412G"),
    ("wrn28_10", 32): ("36,479,194", "5.243G"),
    ("resnet18", 224): ("11.69M", "1.814G"),
    ("resnet18 + SE", 224): ("11.78M", "1.814G"),
    ("resnet18 + CBAM", 224): ("11.78M", "1.815G"),
    ("resnet34", 224): ("21.80M", "3.664G"),
    ("resnet50", 224): ("25.56M", "3.858G"),
    ("resnet50 + SE", 224): ("28.09M", "3.860G"),
    ("resnet50 + CBAM", 224): ("28.09M", "3.864G"),
    ("resnet101", 224): ("44.55M", "7.570G"),
    ("resnet101 + SE", 224): ("49.33M", "7.575G"),
    ("resnet101 + CBAM", 224): ("49.33M", "7.581G"),
    ("resnet152", 224): (None, "11.3G"),
}
# By part and count: A.1 and Table A of the paper, counted by hand.
COUNTED = {
    ("extractor, 32 px, T 8x8", "E1, multiply-adds"): "7,208,960",
    ("extractor, 32 px, T 8x8", "E1 + E2 + G1, multiply-adds"): "9,830,400",
    ("extractor, 32 px, T 8x8", "E1 + E2 + G1, convolution weights"): "342,528",
    (
        "extractor, 32 px, T 8x8",
        "the same, with batch norm and the embedding of 1000 categories, parameters",
    ): "353,544",
    ("gate of resnet32", "convolution weights"): "33,784",
    ("gate of resnet56", "convolution weights"): "33,784",
    ("gate of resnet110", "convolution weights"): "33,784",
    ("gate of resnet32", "R and L3 alone, multiply-adds"): "3,407,872",
    ("gate of resnet32", "all, if L1 and L2 ran at 16x16 as well, which we do not do"): "3.61M",
}


def assert_rounds_to(count, published):
    """Asserts that a count as text, "228,267,008", is one that was published, "228.27M", at its digits."""
    number = float(published.rstrip("MG").replace(",", ""))
    unit, digits = {"M": 1e6, "G": 1e9}.get(published[-1], 1), len(published.rstrip("MG").partition(".")[2])
    assert round(int(count.replace(",", "")) / unit, digits) == number, (count, published)


@pytest.mark.slow
@pytest.mark.usefixtures("zero_kernels")
def test_every_network_has_the_published_counts_and_the_docs_have_ours():
    networks, parts = list(complexity.network_rows()), list(complexity.part_rows())
    assert {row[:2] for row in networks} == set(PUBLISHED) and len(networks) == 21 and len(parts) == 30
    for title, pixels, _, *counts, _ in networks:
        for count, published in zip(counts, PUBLISHED[title, pixels], strict=True):
            if published is not None:
                assert_rounds_to(count, published)
    ours = {row[:2]: row[2] for row in parts}
    for key, count in COUNTED.items():
        assert_rounds_to(ours[key], count)
    text = (ROOT / "docs" / "complexity.md").read_text()
    for rows in (networks, parts):
        assert markdown_table(("x",) * len(rows[0]), rows).partition("\n")[2] in text


def test_a_models_scopes_add_up_to_its_counts(gated_resnet32, resnet32, encoder):
    scopes = complexity.scopes(gated_resnet32)
    assert scopes["network"] == (complexity.parameters(resnet32), complexity.macs(resnet32))
    assert scopes["extractor"] == (complexity.parameters(encoder), complexity.macs(encoder))
    assert scopes["gate"][1] == complexity.gate_macs(gated_resnet32, resnet32, products=True)
    assert list(complexity.scopes(resnet32)) == ["network"]
