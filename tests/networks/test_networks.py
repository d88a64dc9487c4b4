"""One harness that every network passes through: counts, shapes, gradients, files, policies, image sizes and names.

`PYTHONPATH=. python tests/test_networks.py` prints the counts beside what the papers' definitions give. `--golden`
writes the fingerprints of now to `golden/networks.json`: where one differs from before, weight files of before cannot
be read.
"""

import dataclasses
import functools
import gc
import json
import pathlib
import re
import sys

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cdc_keras import choices, complexity
from cdc_keras.gate.attach import attach
from cdc_keras.networks import autoencoder, registry, resnet
from cdc_keras.weights import fingerprint

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks.json"
VARIANTS = ("none", "se", "cbam", "gated")
WORK_SIZE = 33  # pixels: every network takes it, and no stride divides it


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of the harness; `stem` is given where there are two of that name."""

    name: str
    image_size: int
    num_classes: int
    stem: str | None = None

    def __str__(self):
        return self.name if self.stem is None else f"{self.name} {self.stem} stem"

    @property
    def least_size(self):
        return 32 if self.name.startswith("vgg") else 1

    @property
    def gate_sizes(self):
        return {32: (8, 16), 224: (28, 56)}[self.image_size]


CASES = (
    *(Case(name, 32, 10) for name in ("vgg13", "vgg16", "vgg13_slim")),
    *(Case(f"resnet{depth}", 32, 1000) for depth in (20, 32, 44, 56, 110)),
    *(Case(f"preresnet{depth}", 32, 10) for depth in (110, 164)),
    *(Case(f"wrn{which}", 32, 10) for which in ("16_2", "16_4", "16_10", "28_10", "40_4")),
    *(Case(f"resnet{depth}", 32, 10, "small") for depth in (18, 34, 50, 101, 152)),
    *(Case(f"resnet{depth}", 224, 1000, "imagenet") for depth in (18, 34, 50, 101, 152)),
)
IN_SECONDS = ("vgg13_slim", "resnet20", "wrn16_2")  # the rest is left to `make test`
# Left to `make long`: more of the same blocks as in a network that `make test` sees; test_complexity.py counts most.
REPEATED = (
    *("resnet34", "resnet44", "resnet56", "resnet101", "resnet110", "resnet152"),
    *("preresnet110", "wrn28_10", "wrn40_4"),  # the blocks of wrn16_2
)


class Definition:
    """A network counted from the tables of its paper, layer by layer; nothing here reads a model.

    Attributes:
        parameters, macs: the totals so far.
        groups: [(name of the layer that ends the group, of the layer a gate follows, (H, W, C))].
    """

    def __init__(self, name, size, num_classes, variant="none", stem=None):
        self.parameters = self.macs = 0
        self.size, self.channels, self.groups, self.variant = size, 3, [], variant
        family, *numbers = re.fullmatch(r"([a-z]+)(\d+)_?(\d+)?(_slim)?", name).groups()
        depth, widening = int(numbers[0]), int(numbers[1] or 1)
        if family == "vgg":
            self.vgg(depth, 4 if numbers[2] else 1)
        elif family == "wrn":  # Zagoruyko & Komodakis 2016, Table 1
            self.before_activation((depth - 4) // 6, [widening * width for width in (16, 32, 64)], False)
        elif family == "preresnet":  # He et al. 2016: two layers a block, three at depth 164
            self.before_activation((depth - 2) // (9 if depth == 164 else 6), (16, 32, 64), depth == 164)
        elif stem is None:
            self.cifar((depth - 2) // 6)
        else:
            self.imagenet(depth, stem)
        self.dense(num_classes)
        if variant == "gated":
            self.gate(size)

    def conv(self, kernel, filters, stride=1, bias=False):
        self.size = -(-self.size // stride)  # padded by (kernel - 1) / 2: ceil(S / stride)
        self.parameters += kernel * kernel * self.channels * filters + bias * filters
        self.macs += kernel * kernel * self.channels * filters * self.size**2
        self.channels = filters

    def conv_bn(self, *args, **kwargs):
        self.conv(*args, **kwargs)
        self.bn()

    def bn(self):
        self.parameters += 2 * self.channels

    def dense(self, units, calls=1):
        self.parameters += self.channels * units + units
        self.macs += calls * self.channels * units
        self.channels = units

    def beside(self, count, *args, **kwargs):
        """Counts a branch that starts here, and stays here."""
        here = self.size, self.channels
        count(*args, **kwargs)
        self.size, self.channels = here

    def end_group(self, end, site):
        self.groups.append((end, site, (self.size, self.size, self.channels)))

    def vgg(self, depth, divisor):
        """Simonyan & Zisserman 2014, Table 1, B and D, with batch norm and one dense layer (A.1)."""
        for block, width in enumerate((64, 128, 256, 512, 512), 1):
            convs = 3 if depth == 16 and block >= 3 else 2
            for _ in range(convs):
                self.conv_bn(3, width // divisor, bias=True)
            self.attend()
            self.end_group(f"block{block}_conv{convs}_act", f"block{block}_conv{convs}_bn")
            self.size //= 2

    def cifar(self, blocks):
        """He et al. 2015a, Sec. 4.2: 3x3 convolutions of 16, 32, 64 filters, option A's shortcuts without weights."""
        self.conv_bn(3, 16)
        for stage, width in enumerate((16, 32, 64), 1):
            for block in range(1, blocks + 1):
                self.conv_bn(3, width, 2 if stage > 1 and block == 1 else 1)
                self.conv_bn(3, width)
                self.attend()
            self.end_group(f"stage{stage}_block{blocks}_act", f"stage{stage}_block{blocks}_add")

    def imagenet(self, depth, stem):
        """He et al. 2015a, Table 1: a bottleneck's stride in its first 1x1, option B's shortcuts."""
        stages = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
        if stem == "imagenet":
            self.conv_bn(7, 64, 2)
            self.size = -(-self.size // 2)  # 3x3 max-pool
        else:
            self.conv_bn(3, 64)
        for stage, (blocks, width) in enumerate(zip(stages, (64, 128, 256, 512), strict=True), 1):
            convs = ((1, width), (3, width), (1, 4 * width)) if depth >= 50 else ((3, width), (3, width))
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                if stride > 1 or self.channels != convs[-1][1]:
                    self.beside(self.conv_bn, 1, convs[-1][1], stride)
                for i, (kernel, filters) in enumerate(convs):
                    self.conv_bn(kernel, filters, 1 if i else stride)
                self.attend()
            self.end_group(f"stage{stage}_block{blocks}_act", f"stage{stage}_block{blocks}_add")

    def before_activation(self, blocks, widths, bottleneck):
        """He et al. 2016, Fig. 1b: batch norm before each convolution, plain 1x1 shortcuts, batch norm at the end."""
        self.conv(3, 16)
        for stage, width in enumerate(widths, 1):
            convs = ((1, width), (3, width), (1, 4 * width)) if bottleneck else ((3, width), (3, width))
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                if stride > 1 or self.channels != convs[-1][1]:
                    self.beside(self.conv, 1, convs[-1][1], stride)
                for i, (kernel, filters) in enumerate(convs):
                    self.bn()
                    self.conv(kernel, filters, 1 if i else stride)
                self.attend()
            self.end_group(f"stage{stage}_block{blocks}_add", f"stage{stage}_block{blocks}_add")
        self.bn()

    def attend(self):
        """Hu et al. 2018, Eq. 3: two dense layers; Woo et al. 2018, Eqs. 2 and 3: the same on two poolings, and 7x7."""
        channels = self.channels
        if self.variant == "se":
            self.dense(max(channels // 16, 4))
            self.dense(channels)
        elif self.variant == "cbam":
            self.dense(max(channels // 16, 1), calls=2)
            self.dense(channels, calls=2)
            self.channels = 2
            self.conv_bn(7, 1)
            self.channels = channels

    def gate(self, image_size):
        """Sec. 3 and A.1: L1 and L2 at T's resolution, R and L3 at every site; the frozen extractor costs MACs only."""
        resolutions, reduction = {32: ((8, 16), 2), 224: ((28, 56), 4)}[image_size]
        self.size, self.channels = resolutions[0], 2
        self.beside(self.chain, ((3, 4), (3, 1)), last_bn=True)  # L1
        self.beside(self.chain, ((3, 4), (3, 4), (3, 4), (3, 1)))  # L2
        for _, _, (size, _, channels) in self.groups:
            for _ in ("R", "L3") if size in resolutions else ():
                self.size, self.channels = size, channels
                for kernel, filters in ((1, channels // reduction), (3, channels // reduction), (1, channels)):
                    self.bn()
                    self.conv(kernel, filters)
        # A.1 and Fig. 2: (kernel, channels in, out, size of the smaller side) of E1; E2 and G1 are four of 4/2.
        e1 = {
            32: ((4, 3, 32, 16), (3, 32, 32, 16), (4, 32, 64, 8), (3, 64, 64, 8)),
            224: ((4, 3, 32, 112), (3, 32, 32, 112), (4, 32, 64, 56), (4, 64, 64, 28)),
        }[image_size]
        h = resolutions[0]
        for kernel, before, after, size in (*e1, *2 * ((4, 64, 64, h // 2), (4, 64, 64, h // 4))):
            self.macs += kernel * kernel * before * after * size**2

    def chain(self, convs, last_bn=False):
        for i, (kernel, filters) in enumerate(convs, 1):
            self.conv(kernel, filters)
            if last_bn or i < len(convs):
                self.bn()


# What the literature prints, {(name, variant, size, classes, stem): (parameters, billions of multiply-adds)}. Of the
# ImageNet ResNets: torchvision's parameters, the multiply-adds of He et al. 2015a ("3.8, 7.6, 11.3") to more digits.
LITERATURE = {
    ("vgg13", "none", 32, 10, None): (9_416_010, "0.228267008"),
    ("vgg16", "none", 32, 10, None): (14_728_266, "0.313201664"),
    ("resnet32", "none", 32, 1000, None): (528_504, "0.068925952"),
    ("resnet56", "none", 32, 1000, None): (917_368, "0.125549056"),
    ("resnet110", "none", 32, 1000, None): (1_792_312, "0.252951040"),
    ("wrn16_10", "none", 32, 10, None): (17_116_634, "2.412"),
    ("wrn28_10", "none", 32, 10, None): (36_479_194, "5.243"),
    ("resnet18", "none", 224, 1000, "imagenet"): (11_689_512, None),
    ("resnet34", "none", 224, 1000, "imagenet"): (21_797_672, None),
    ("resnet50", "none", 224, 1000, "imagenet"): (25_557_032, "3.86"),
    ("resnet101", "none", 224, 1000, "imagenet"): (44_549_160, "7.57"),
    ("resnet152", "none", 224, 1000, "imagenet"): (60_192_808, "11.28"),
    ("resnet50", "se", 224, 1000, "imagenet"): (28_088_024, None),
    ("resnet50", "cbam", 224, 1000, "imagenet"): (28_089_624, None),
}


class Networks:
    """The networks of a case, each built when a check first asks for it."""

    def __init__(self, case):
        self.case = case

    def build(self, size, variant="none"):
        stem, num_classes = self.case.stem, self.case.num_classes
        if stem is None or (stem == "small") == (size <= resnet.LARGEST_FOR_SMALL_STEM):
            return registry.build(self.case.name, size, num_classes=num_classes, block_attention=variant)
        depth = int(self.case.name.removeprefix("resnet"))
        return resnet.imagenet_resnet(depth, size, num_classes=num_classes, block_attention=variant, stem=stem)

    def definition(self, variant="none", size=None):
        return Definition(self.case.name, size or self.case.image_size, self.case.num_classes, variant, self.case.stem)

    @functools.cached_property
    def none(self):
        return self.build(self.case.image_size)

    @functools.cached_property
    def se(self):
        return self.build(self.case.image_size, "se")

    @functools.cached_property
    def cbam(self):
        return self.build(self.case.image_size, "cbam")

    @functools.cached_property
    def gated(self):
        return attach(self.none, encoder(self.case.image_size), self.sites)

    @functools.cached_property
    def sites(self):
        return registry.sites(self.none, *self.case.gate_sizes)

    @functools.cached_property
    def large(self):
        return self.none if self.case.image_size == 224 else self.build(224)

    @functools.cached_property
    def work(self):
        """The plain network with weights that no default hides."""
        network = self.build(WORK_SIZE)
        reference.randomise(network.variables)
        if not self.case.name.startswith("vgg"):  # what the blocks add stays smaller than what they add it to
            for v in network.variables:
                if v.name == "gamma":
                    v.assign(v / 2)
        return network

    @functools.cached_property
    def logits(self):
        return self.work(noise(WORK_SIZE), training=False).numpy()


@functools.cache
def encoder(size):
    extractor = autoencoder.encoder(size)
    reference.randomise(extractor.variables)
    return extractor


def noise(size, count=1):
    return np.random.default_rng(size).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def copy_weights(source, target):
    """Gives the variables of `target` the values of those of the same path; returns the ones that there are not."""
    values = {v.path: v for v in source.variables}
    for v in target.variables:
        if v.path in values:
            v.assign(values[v.path])
    return [v for v in target.variables if v.path not in values]


def layout(network):
    return [(v.path, tuple(v.shape)) for v in network.variables]


def assert_same(got, expected):
    # The same weights through the same operations; a library may still add up in another order, so not bit for bit.
    error = abs(np.asarray(got) - expected).max() / abs(expected).max()
    assert error <= 1e-6, f"largest error {error:.1e} of the largest logit"


@pytest.fixture(scope="module", autouse=True)
def cheap_builds(zero_kernels):
    yield
    encoder.cache_clear()


def _marks(case):
    if case.name in IN_SECONDS:
        return []
    return pytest.mark.long if case.name in REPEATED else pytest.mark.slow


@pytest.fixture(scope="module", params=[pytest.param(case, id=str(case), marks=_marks(case)) for case in CASES])
def built(request):
    gc.disable()
    yield Networks(request.param)
    gc.enable()
    gc.collect()


@pytest.fixture
def mixed_bfloat16(built):
    assert built.work.dtype_policy.name == "float32"  # and built before the policy is set, whichever test comes first
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_are_those_of_the_definition(built, variant):
    network, expected = getattr(built, variant), built.definition(variant)
    assert complexity.parameters(network) == expected.parameters
    assert complexity.macs(network) == expected.macs


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_of_variables_are_those_of_the_golden_file(built, variant):
    stored = json.loads(GOLDEN.read_text())[f"{built.case}, {variant}"]
    assert fingerprint(getattr(built, variant)) == stored


def test_groups_end_at_the_layers_and_shapes_of_the_definition(built):
    expected = built.definition().groups
    assert registry.groups(built.none) == [end for end, _, _ in expected]
    assert [built.none.get_layer(end).output.shape[1:] for end, _, _ in expected] == [shape for _, _, shape in expected]


def test_a_gate_goes_before_the_activation_of_the_groups_of_its_resolutions(built):
    sizes = built.case.gate_sizes
    expected = [site for _, site, (size, _, _) in built.definition().groups if size in sizes]
    assert len(expected) == 2
    assert built.sites == expected


@pytest.mark.parametrize("variant", ["se", "cbam", "gated"])
def test_every_trainable_weight_gets_a_gradient(built, variant):
    network = getattr(built, variant)
    # In inference mode: a bias before a batch norm has no gradient in training. "gated" holds the layers of the plain
    # network, so those are checked by it.
    reference.randomise(copy_weights(built.work, network))
    if variant == "gated":
        copy_weights(encoder(built.case.image_size), network.get_layer("extractor").network)
    for v in network.variables:
        if v.path.endswith("_dense1/bias"):  # one to four ReLUs on a vector, which would be all off by chance
            v.assign(v + 2.0)
        if re.search(r"(_dense1|_spatial_conv)/kernel$", v.path):  # or the sigmoids 0 or 1 exactly
            v.assign(v / 50)
        if v.path == "gate_l2_conv4/kernel":  # the same, and Eq. 4 sums over all positions
            v.assign(v / (50 * built.case.image_size**2))
    images = noise(built.case.image_size)
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(network(images, training=False)[:, ::2])
    variables = network.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    finite = [gradient is not None and np.isfinite(gradient).all() and np.any(gradient) for gradient in gradients]
    assert not [v.path for v, good in zip(variables, finite, strict=True) if not good]


def test_a_keras_file_gives_the_same_logits(built, tmp_path):
    built.work.save(tmp_path / "network.keras")
    reloaded = keras.models.load_model(tmp_path / "network.keras")
    assert_same(reloaded(noise(WORK_SIZE), training=False), built.logits)


def test_a_weight_file_in_a_fresh_build_gives_the_same_logits(built, tmp_path):
    built.work.save_weights(tmp_path / "network.weights.h5")
    fresh = built.build(WORK_SIZE)
    fresh.load_weights(tmp_path / "network.weights.h5")
    assert_same(fresh(noise(WORK_SIZE), training=False), built.logits)


def test_the_config_gives_the_same_variables(built):
    assert layout(keras.Model.from_config(built.work.get_config())) == layout(built.work)


def test_mixed_bfloat16_computes_in_bfloat16_and_gives_float32_logits_near_those_of_float32(built, mixed_bfloat16):
    network = built.build(WORK_SIZE)
    assert {v.dtype for v in network.variables} == {"float32"}
    assert not copy_weights(built.work, network)
    *inner, last = network.layers[1:]
    outputs = keras.Model(network.input, [layer.output for layer in (*inner, last)])(noise(WORK_SIZE), training=False)
    assert {output.dtype for output in outputs[:-1]} == {tf.bfloat16}
    assert last.name == "logits" and outputs[-1].dtype == tf.float32
    # bfloat16 rounds by up to 2**-9 = 0.2 %; two or three roundings a layer partly cancel, and these weights do not
    # amplify them: measured 0.9 % at most, for VGG-16, and 0.5 % for the residual networks.
    error = np.linalg.norm(outputs[-1] - built.logits) / np.linalg.norm(built.logits)
    assert error < 0.02, f"{error:.3f} of the float32 logits"


def test_at_8_px_it_runs_or_names_its_least_size(built):
    if built.case.least_size > 8:
        with pytest.raises(ValueError, match=f"at least {built.case.least_size} pixels, not 8"):
            built.build(8)
    else:
        network = built.build(8)
        assert not copy_weights(built.work, network)
        logits = network(noise(8), training=False).numpy()
        assert logits.shape == (1, built.case.num_classes) and np.isfinite(logits).all() and np.any(logits)


def test_at_an_odd_size_it_runs_and_no_group_loses_a_pixel(built):
    assert built.logits.shape == (1, built.case.num_classes) and np.isfinite(built.logits).all()
    expected = [shape for _, _, shape in built.definition(size=WORK_SIZE).groups]
    shapes = [built.work.get_layer(name).output.shape[1:] for name in registry.groups(built.work)]
    assert shapes == expected


def test_at_224_px_it_builds_to_the_shapes_of_the_definition(built):
    assert built.large.output_shape == (None, built.case.num_classes)
    expected = [shape for _, _, shape in built.definition(size=224).groups]
    shapes = [built.large.get_layer(name).output.shape[1:] for name in registry.groups(built.large)]
    assert shapes == expected


@pytest.mark.parametrize("key", LITERATURE, ids=lambda key: " ".join(map(str, key[:2])))
def test_a_definition_gives_what_the_literature_prints(key):
    name, variant, size, num_classes, stem = key
    parameters, billions = LITERATURE[key]
    definition = Definition(name, size, num_classes, variant, stem)
    assert definition.parameters == parameters
    if billions:
        assert f"{definition.macs / 1e9:.{len(billions.partition('.')[2])}f}" == billions


def test_the_golden_file_holds_every_network_and_no_other():
    assert list(json.loads(GOLDEN.read_text())) == [f"{case}, {variant}" for case in CASES for variant in VARIANTS]


def test_at_128_px_resnet101_is_gated_at_either_pair_of_resolutions():
    network = registry.build("resnet101", 128, num_classes=10)
    assert registry.sites(network, 8, 16) == ["stage2_block4_add", "stage3_block23_add"]
    assert registry.sites(network, 16, 32) == ["stage1_block3_add", "stage2_block4_add"]


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("resnet21", "resnet18, 34, 50, 101, 152; resnet<6n + 2> such as resnet20, 32, 44, 56, 110"),
        ("wrn17_10", "wrn<6n + 4>_<k> such as wrn16_10, wrn28_10, wrn40_4"),
        ("vgg12", "vgg13, vgg16"),
        ("preresnet20", "preresnet110, preresnet164"),
    ],
)
def test_a_wrong_depth_is_an_error_naming_the_valid_ones_of_the_family(name, members):
    with pytest.raises(ValueError, match=re.escape(f"no network {name!r}; there are {members}") + "$"):
        registry.build(name, 32, num_classes=10)


def test_a_name_of_no_family_is_an_error_naming_all():
    with pytest.raises(ValueError, match="no network 'nonsense'") as raised:
        registry.build("nonsense", 32, num_classes=10)
    assert all(family.members in str(raised.value) for family in choices.FAMILIES.values())


def test_an_unknown_block_attention_is_an_error_naming_the_known_ones():
    with pytest.raises(ValueError, match="block_attention is one of none, se, cbam, not 'senet'"):
        registry.build("resnet20", 32, num_classes=10, block_attention="senet")


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_a_network_with_block_attention_reloads_from_a_keras_file(attention, tmp_path):
    network = registry.build("resnet20", 32, num_classes=10, block_attention=attention)
    reference.randomise(network.variables)
    network.save(tmp_path / "network.keras")
    reloaded = keras.models.load_model(tmp_path / "network.keras")
    assert_same(reloaded(noise(32), training=False), network(noise(32), training=False).numpy())


@pytest.fixture(scope="module")
def normalized():
    """(a network, the same with normalization "imagenet")."""
    plain = registry.build("resnet20", 32, num_classes=10)
    reference.randomise(plain.variables)
    network = registry.build("resnet20", 32, num_classes=10, normalization="imagenet")
    assert not copy_weights(plain, network)
    return plain, network


def test_a_normalized_network_sees_images_of_mean_0_and_deviation_1_over_imagenet(normalized):
    plain, network = normalized
    images = noise(32, 3)
    by_hand = ((images + 1) / 2 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    expected = plain(by_hand, training=False).numpy()
    error = abs(network(images, training=False).numpy() - expected).max() / abs(expected).max()
    assert error < 1e-5  # float32's 2**-24 in the images, a dozen times that after twenty layers


def test_the_extractor_of_a_gated_normalized_network_sees_the_images_as_they_are(normalized):
    _, network = normalized
    gated = attach(network, encoder(32), registry.sites(network, 8, 16))
    images = noise(32, 3)
    context = keras.Model(gated.input, gated.get_layer("extractor").output)(images, training=False)
    np.testing.assert_array_equal(context, encoder(32)(images, training=False))


def table():
    """Yields a Markdown table of the counts, with the differences to the definitions."""
    yield "| network | image | classes | parameters | expected | difference | MACs | expected | difference |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for case in CASES:
        built = Networks(case)
        for variant in VARIANTS:
            network, expected = getattr(built, variant), built.definition(variant)
            what = f"| {case}{'' if variant == 'none' else f', {variant}'} | {case.image_size} | {case.num_classes} |"
            counts = (complexity.parameters(network), expected.parameters), (complexity.macs(network), expected.macs)
            yield what + "".join(f" {ours:,} | {other:,} | {ours - other} |" for ours, other in counts)


def write_golden():
    """Writes the fingerprints of the networks as they are now."""
    marks = {}
    for case in CASES:
        built = Networks(case)
        marks.update({f"{case}, {variant}": fingerprint(getattr(built, variant)) for variant in VARIANTS})
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(marks, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--golden"]:
        write_golden()
    else:
        for line in table():
            print(line, flush=True)
