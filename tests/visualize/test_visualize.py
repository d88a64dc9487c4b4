"""Pictures: what they show, in which text, and that they are whole."""

import csv
import errno

import keras
import numpy as np
import pytest
from PIL import Image

from cdc_keras.data.pipeline import scale
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import gate_outputs
from cdc_keras.networks import autoencoder, graph
from cdc_keras.networks.resnet import cifar_resnet
from cdc_keras.networks.spread import RelativeSpread, spread_extractor
from cdc_keras.networks.vgg import vgg
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.visualize import figures as visualize
from cdc_keras.visualize import maps, text

SITES = ["stage2_block1_add", "stage3_block1_add"]


@pytest.fixture(scope="module")
def split():
    return shapes(8, seed=0)


@pytest.fixture(scope="module")
def disentangler():
    return Disentangler(32, 10, discriminator_width=4)


@pytest.fixture(scope="module")
def gated():
    return attach(cifar_resnet(8, num_classes=10), autoencoder.encoder(32), SITES)


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved during a test."""
    figures, save = [], visualize.save_figure
    monkeypatch.setattr(visualize, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def size_of(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        picture.load()
        return picture.size


def panels(figure, title):
    """The axes of the column with this title, top to bottom, and the arrays they show."""
    column = next(
        ax.get_subplotspec().colspan.start for ax in figure.axes if ax.get_title().replace("\n", " ") == title
    )
    axes = [ax for ax in figure.axes if ax.get_subplotspec() and ax.get_subplotspec().colspan.start == column]
    return axes, np.stack([np.asarray(ax.images[0].get_array()) for ax in axes])


def cubic_matrix(small, large):
    """Bicubic up-sampling along one axis as a matrix: Keys' kernel with a = -1/2, half-pixel centres."""
    centres = (np.arange(large) + 0.5) * small / large - 0.5
    t = np.abs(centres[:, None] - np.arange(small))
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    weights = np.where(t <= 1, near, np.where(t < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def test_the_focus_is_the_mean_square_upsampled_and_stretched():
    features = np.random.default_rng(0).normal(size=(3, 4, 4, 5)).astype(np.float32)
    m = cubic_matrix(4, 32)
    energy = m @ (features**2).mean(axis=-1) @ m.T
    low, high = energy.min(axis=(1, 2), keepdims=True), energy.max(axis=(1, 2), keepdims=True)
    # float32 against float64
    np.testing.assert_allclose(maps.focus_map(features, 32), (energy - low) / (high - low), atol=1e-5)


def test_the_focus_of_constant_features_is_zero_and_not_nan():
    assert not keras.ops.any(maps.focus_map(np.zeros((2, 4, 4, 3), np.float32), 8))


def test_an_overlay_is_half_image_and_half_heat():
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    result = visualize.overlay(images, np.array([[[0.0, 1.0], [0.0, 1.0]]]))
    assert (result.shape, result.dtype) == ((1, 2, 2, 3), np.uint8)
    blue, red = result[0, 0].astype(int)
    assert blue[2] > blue[0] and red[0] > red[2]
    assert result.min() >= 50 and result.max() <= 178


def test_reconstructions_show_the_images_and_the_measured_error(disentangler, split, tmp_path, saved):
    visualize.reconstructions(disentangler, split.images, split.labels, tmp_path / "r.png", count=4)
    assert size_of(tmp_path / "r.png") == tuple(round(100 * side) for side in saved[0].get_size_inches())
    inputs = keras.ops.convert_to_numpy(scale(split.images[:4]))
    outputs = keras.ops.convert_to_numpy(disentangler(inputs, split.labels[:4]))
    assert f"{np.mean((outputs - inputs) ** 2):.4f}" in saved[0].get_suptitle()
    assert np.array_equal(saved[0].axes[0].images[0].get_array(), split.images[0])


def decode(disentangler, split):
    context = disentangler(scale(split.images[:6]), training=False)
    return lambda labels: disentangler.decode(context, disentangler.condition(labels))


def test_a_swap_to_the_own_category_is_the_reconstruction(disentangler, split, tmp_path, saved):
    painted = decode(disentangler, split)
    visualize.condition_swaps(painted, split.images, split.labels, CLASS_NAMES, tmp_path / "s.png", conditions=10)
    _, reconstructed = panels(saved[0], "reconstruction")
    for row, label in enumerate(split.labels[:6]):
        _, swapped = panels(saved[0], CLASS_NAMES[label])
        assert np.array_equal(swapped[row], reconstructed[row])


def test_a_swap_to_another_category_changes_the_picture(disentangler, split, tmp_path, saved):
    painted = decode(disentangler, split)
    visualize.condition_swaps(painted, split.images, split.labels, CLASS_NAMES, tmp_path / "s.png", conditions=2)
    assert (panels(saved[0], "circle")[1] != panels(saved[0], "arrow")[1]).any()


def test_m_is_drawn_with_its_real_values_on_a_fixed_scale(gated, split, tmp_path, saved):
    visualize.strip(split.images, None, gated, tmp_path / "s.png", count=3)
    axes, drawn = panels(saved[0], "M, 0 to 1")
    model = graph.activations(gated, ["gate_attention"])
    m = keras.ops.convert_to_numpy(model(scale(split.images[:3]))["gate_attention"])[..., 0]
    np.testing.assert_allclose(drawn, np.repeat(np.repeat(m, 4, axis=1), 4, axis=2), atol=1e-6)
    assert all(ax.images[0].get_clim() == (0, 1) for ax in axes)
    captions = [ax.get_xlabel() for ax in panels(saved[0], "M, stretched")[0]]
    assert captions == [f"{x.min():.3f} .. {x.max():.3f}" for x in m]


def test_the_strip_has_the_seven_panels_of_fig_4_and_grad_cam_beside_them(gated, split, tmp_path, saved):
    plain = cifar_resnet(8, num_classes=10)
    visualize.strip(split.images, plain, gated, tmp_path / "s.png", count=2, grad_cam=True)
    assert SITES[0] in saved[0].get_suptitle()  # the shallowest
    layers = {
        "before the gate": (gated, SITES[0]),
        "suppressed": (gated, f"gate_{SITES[0]}_suppressed"),
        "after R": (gated, f"gate_{SITES[0]}_out"),
        "last features, gated": (gated, f"gate_{SITES[1]}_out"),
        "last features, plain": (plain, SITES[1]),
    }
    titles = [ax.get_title().replace("\n", " ") for ax in saved[0].axes[: len(layers) + 5]]
    assert titles == ["input", "M, 0 to 1", "M, stretched", *layers, "Grad-CAM, gated", "Grad-CAM, plain"]
    for name, (network, layer) in layers.items():
        features = keras.ops.relu(graph.activations(network, [layer])(scale(split.images[:2]))[layer])
        expected = visualize.overlay(split.images[:2], maps.focus_map(features, 32))
        assert abs(panels(saved[0], name)[1].astype(int) - expected).max() <= 1  # rounding


def test_grad_cam_weighs_the_channels_by_their_gradient(split):
    # Behind the last features comes the mean and a matrix W, so the gradient is W's column over the positions.
    x = inputs = keras.Input((32, 32, 3))
    for filters in (6, 5):
        x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(x)))
    assert maps.last_features(model) == model.layers[2].name
    assert maps.last_features(vgg(13, num_classes=10, width=16)).startswith("block4")  # block5 has 2 x 2
    features = keras.ops.convert_to_numpy(keras.Model(inputs, x)(scale(split.images)))
    kernel = model.get_layer("head").kernel.numpy()
    logits = keras.ops.convert_to_numpy(model(scale(split.images)))
    model.get_layer("head").bias.assign(-logits.mean(axis=0))  # so that not all images are of one category
    classes = (logits - logits.mean(axis=0)).argmax(axis=1)
    cam = np.maximum(np.einsum("bhwc,cb->bhw", features, kernel[:, classes]), 0)
    m = cubic_matrix(cam.shape[1], 32)
    cam = m @ cam @ m.T
    low, high = cam.min(axis=(1, 2), keepdims=True), cam.max(axis=(1, 2), keepdims=True)
    expected = (cam - low) / np.where(high > low, high - low, 1)
    model.trainable = False
    assert len(set(classes)) > 1
    np.testing.assert_allclose(maps.grad_cam_maps(model, split.images), expected, atol=1e-4)


def test_iou_and_pointing_game_by_hand():
    mask = np.zeros((4, 4, 4), bool)
    mask[:, 1:3, 1:3] = True
    heat = np.zeros((4, 4, 4))
    heat[0] = mask[0]  # the mask itself
    heat[1, 0] = [4, 3, 2, 1]  # elsewhere
    heat[2, 1] = [0.5, 2, 3, 0.7]  # two of four pixels inside: 2 / 6; the other two outside
    heat[3] = 0.3  # nowhere in particular: a share of 4/16 of the part, 1 pixel: 1 / 7
    np.testing.assert_allclose(maps.iou(heat, mask), [1, 0, 2 / 6, 1 / 7])
    np.testing.assert_allclose(maps.pointing(heat, mask), [1, 0, 1, 4 / 16])
    np.testing.assert_allclose(maps.energy(heat, mask), [1, 0, 5 / 6.2, 4 / 16])
    np.testing.assert_allclose(maps.energy(np.zeros((4, 4, 4)), mask), 4 / 16)


def test_v_of_a_gate_that_sees_it_is_one_of_its_maps(split):
    extractor = spread_extractor(autoencoder.encoder(32), autoencoder.decoder(32, (8, 8, 64), num_classes=10))
    gated = attach(cifar_resnet(8, num_classes=10), extractor, SITES)
    shown = maps.attention_maps(split.images[:2], gated=gated, grad_cam=False)
    spread = extractor(scale(split.images[:2]), training=False)[1]
    expected = np.repeat(np.repeat(RelativeSpread()(spread)[..., 0], 4, axis=1), 4, axis=2)
    assert list(shown)[:2] == ["M", "V"]
    np.testing.assert_allclose(shown["V"], expected, atol=1e-6)


def test_below_a_map_of_a_known_object_stands_how_well_it_is_found(gated, split, tmp_path, saved):
    masks = split.factors["mask"]
    visualize.strip(split.images, None, gated, tmp_path / "s.png", count=3, masks=masks, labels=list("abc"))
    shown = maps.attention_maps(split.images[:3], gated=gated, grad_cam=False)["after R"]
    axes, _ = panels(saved[0], "after R")
    for ax, share, hit in zip(axes, maps.iou(shown, masks[:3]), maps.pointing(shown, masks[:3]), strict=True):
        assert ax.get_xlabel() == f"IoU {share:.2f}{' •' if hit > 0.5 else ''}"
    assert [ax.get_ylabel() for ax in panels(saved[0], "input")[0]] == list("abc")


def test_the_gates_output_is_found_without_its_residual_unit():
    model = attach(cifar_resnet(8, num_classes=10), autoencoder.encoder(32), SITES, residual=False)
    assert gate_outputs(model) == {site: f"gate_{site}_out" for site in SITES}


def test_a_gate_without_attention_has_neither_m_nor_suppressed(split, tmp_path, saved):
    model = attach(cifar_resnet(8, num_classes=10), None, SITES, attention=False)
    visualize.strip(split.images, None, model, tmp_path / "s.png", count=2)
    titles = [ax.get_title().replace("\n", " ") for ax in saved[0].axes[:4]]
    assert titles == ["input", "before the gate", "after R", "last features, gated"]


def test_a_site_without_a_gate_is_refused_with_the_gated_ones(gated, split, tmp_path):
    with pytest.raises(ValueError, match=f"no gate at logits; gated are: {', '.join(SITES)}"):
        visualize.strip(split.images, None, gated, tmp_path / "s.png", site="logits")


def test_a_confusion_matrix_shows_shares_of_the_true_category(tmp_path, saved):
    visualize.confusion_matrix([[3, 1], [0, 0]], ["cat", "dog"], tmp_path / "c.png")
    assert size_of(tmp_path / "c.png") == (800, 700)
    ax = saved[0].axes[0]
    assert np.array_equal(ax.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["cat", "dog"]
    assert "75.0%" in ax.get_title()


def test_a_confusion_matrix_of_many_classes_has_no_names(tmp_path, saved):
    visualize.confusion_matrix(np.eye(21), [f"class {i}" for i in range(21)], tmp_path / "c.png")
    assert "class 0" not in [tick.get_text() for tick in saved[0].axes[0].get_xticklabels()]


def test_curves_put_training_and_validation_of_a_metric_in_one_panel(tmp_path, saved):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,loss,val_loss,accuracy,lr,val_top5\n0,2.0,,0.1,0.1,\n1,1.5,1.75,0.2,0.1,0.5\n")
    with log.open() as lines:
        visualize.curves(list(csv.DictReader(lines)), tmp_path / "curves.png")
    assert size_of(tmp_path / "curves.png") == (1200, 600)
    axes = saved[0].axes
    assert [ax.get_title() for ax in axes] == ["loss", "accuracy", "lr", "top5"]
    assert [line.get_xydata().tolist() for line in axes[0].lines] == [[[0, 2], [1, 1.5]], [[1, 1.75]]]


def test_one_epoch_is_a_mark_at_a_whole_number(tmp_path, saved):
    visualize.curves([{"epoch": 1, "loss": 2.0, "val_loss": 1.5}], tmp_path / "curves.png")
    (ax,) = saved[0].axes
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 1 in ticks and all(tick == round(tick) for tick in ticks)
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]


@pytest.mark.parametrize("name", ["$a$b$", r"a$\frac$", "$^$", "<b>&{x}", "\\$x\\$", "two\nlines", "%s {} \udce9"])
def test_a_category_may_have_any_name(name, gated, split, tmp_path, saved):
    visualize.confusion_matrix(np.eye(2), [name, "dog"], tmp_path / "c.png")
    (first, _) = saved[0].axes[0].get_yticklabels()
    shown = " ".join(name.replace("\udce9", "\ufffd").split())
    assert first.get_text() == shown and not first.get_parse_math()
    visualize.strip(split.images, None, gated, tmp_path / "s.png", count=1, labels=[name])
    assert saved[1].axes[0].get_ylabel().split() == shown.split()


@pytest.fixture
def font(tmp_path, monkeypatch):
    """A font of one Chinese character, installed for a test."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "One Cat", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "cat.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    return lambda: font_manager.fontManager.addfont(tmp_path / "cat.ttf")


def test_chinese_is_drawn_in_a_font_that_has_it_or_one_warning_names_one(font, tmp_path, saved, capfd, monkeypatch):
    for cached in (text._families, text._code_points, text._warn):
        cached.cache_clear()
    for name in ("without", "again"):
        visualize.confusion_matrix(np.eye(2), ["猫", "dog"], tmp_path / f"{name}.png")
    error = capfd.readouterr().err
    assert error.count("no font of this machine has 猫; install Noto Sans CJK") == 1 and "Glyph" not in error
    font()
    text._families.cache_clear()
    visualize.confusion_matrix(np.eye(2), ["猫", "dog"], tmp_path / "with.png")
    assert capfd.readouterr().err == ""
    assert saved[-1].axes[0].get_yticklabels()[0].get_fontfamily() == ["DejaVu Sans", "One Cat"]
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("without", "with")]
    assert not np.array_equal(*pictures)
    for cached in (text._families, text._code_points, text._warn):
        cached.cache_clear()


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_picture_that_fails_leaves_the_old_one_alone_and_nothing_beside_it(function, tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    visualize.confusion_matrix(np.eye(2), ["a", "b"], path)
    before = path.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(f"os.{function}", lambda *names: (_ for _ in ()).throw(full))
    with pytest.raises(UserError, match="could not write .*c.png: No space left on device; free some space"):
        visualize.confusion_matrix(np.ones((2, 2)), ["a", "b"], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
