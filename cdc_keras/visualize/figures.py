"""Pictures of what the networks do: reconstructions, M and the focus of a classifier, confusions, learning curves.

Images come as (N, H, W, 3) uint8, and every picture is a PNG that appears under its name only when it is complete.
"""

import io
import pathlib
import textwrap
import warnings

import matplotlib
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cdc_keras.data.pipeline import scale
from cdc_keras.gate.parts import gate_outputs
from cdc_keras.visualize.maps import attention_maps, iou, pointing, stretch
from cdc_keras.visualize.text import label, text_style
from cdc_keras.weights import write_bytes

DPI = 100
CELL = 1.3  # inches, side of one image in a picture
LABEL_WIDTH = 16  # characters that fit beside one
DIFFERENCE_GAIN = 4  # reconstruction errors are drawn this many times as bright
SWAPPED = 6  # images decoded under other categories
NAMED_CLASSES = 20  # a confusion matrix of more classes has no room for names and numbers
HEAT = "turbo"


def overlay(images, maps):
    """Returns images under half-transparent heat maps, (B, H, W, 3) uint8.

    Args:
        images: (B, H, W, 3) uint8.
        maps: (B, H, W) floats in [0, 1], blue to red.
    """
    heat = matplotlib.colormaps[HEAT](ops.convert_to_numpy(maps))[..., :3] * 255
    return np.round((images + heat) / 2).astype(np.uint8)


def reconstructions(disentangler, images, labels, path, count=8):
    """Writes three rows: images, their reconstructions G2(T, g(y)), and the amplified difference.

    Args:
        disentangler: a trained `Disentangler`.
        images, labels: (N, H, W, 3) uint8 and (N,) integers; the first `count` are drawn, one in a column.
        path: PNG to write.
    """
    images, labels = images[:count], labels[:count]
    inputs = ops.convert_to_numpy(scale(images))
    outputs = ops.convert_to_numpy(disentangler(inputs, labels))
    errors = np.mean((outputs - inputs) ** 2, axis=(1, 2, 3))
    difference = np.clip(np.abs(outputs - inputs) * 127.5 * DIFFERENCE_GAIN, 0, 255).astype(np.uint8)

    figure, axes = _grid(3, len(images), f"Reconstruction, MSE {errors.mean():.4f} in [-1, 1]")
    names = ("input", "reconstruction", f"difference x{DIFFERENCE_GAIN}")
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name)
    for ax, picture in zip(axes.flat, (*images, *_to_uint8(outputs), *difference), strict=True):
        ax.imshow(picture)
    for ax, error in zip(axes[-1], errors, strict=True):
        ax.set_xlabel(f"{error:.4f}")
    save_figure(figure, path)


def condition_swaps(decode, images, labels, class_names, path, count=SWAPPED, conditions=6):
    """Writes rows of an image, its reconstruction, and its T decoded under other categories.

    The columns are the same categories in all rows, spread evenly over all there are; where one is the image's own, it
    is framed. If T holds the category, the columns of a row look alike, as they do for a GM, which has no condition.

    Args:
        decode: function of categories, (B,) integers, that returns T of the first B images decoded under them,
            (B, H, W, 3) in [-1, 1].
        images, labels: (N, H, W, 3) uint8 and (N,) integers; the first `count` are drawn, one in a row.
        class_names: one per label.
        path: PNG to write.
        conditions: number of categories to decode under.
    """
    images, labels = images[:count], labels[:count]
    names = [label(name, LABEL_WIDTH) for name in class_names]
    categories = np.unique(np.linspace(0, len(class_names) - 1, conditions).round().astype(int))
    figure, axes = _grid(len(images), 2 + len(categories), "One T under several conditions (framed: the true category)")
    columns = [("input", images), ("reconstruction", _to_uint8(decode(labels)))]
    columns += [(names[c], _to_uint8(decode(np.full_like(labels, c)))) for c in categories]
    for column, (name, pictures) in zip(axes.T, columns, strict=True):
        column[0].set_title(name, fontsize=9, **text_style(name))
        for ax, picture in zip(column, pictures, strict=True):
            ax.imshow(picture)
    for row, y in zip(axes, labels, strict=True):
        row[0].set_ylabel(names[y], fontsize=9, **text_style(names[y]))
        for ax in row[2:][categories == y]:
            ax.spines[:].set(color="red", linewidth=3)
    save_figure(figure, path)


def strip(images, plain, gated, path, *, site=None, count=6, masks=None, labels=None, grad_cam=False):
    """Writes rows of an image, M, and what the gated and the plain network look at from stage to stage (Figs. 4 and 6).

    The columns are those of `maps.attention_maps`. M often barely moves, so it is drawn twice: on the fixed scale from
    0 to 1, and stretched between its own minimum and maximum, which stand below.

    Args:
        images: (N, S, S, 3) uint8; the first `count` are drawn, one in a row.
        plain: the classifier without gates, or None to leave its columns out.
        gated: the classifier with gates, or None.
        path: PNG to write.
        site: name of the gated layer that is looked into; the shallowest by default.
        masks: (N, S, S) bool, true on the object; below every map then stands how well it finds it, `maps.iou`, and a
            point where it is hottest there, `maps.pointing`.
        labels: N texts to write beside the rows.
        grad_cam: whether to draw Grad-CAM, too.

    Raises:
        ValueError: naming the gated sites, if `site` is none of them.
    """
    images = images[:count]
    maps = attention_maps(images, gated=gated, plain=plain, site=site, grad_cam=grad_cam)
    title = "Focus" if gated is None else f"Gate at {site or next(iter(gate_outputs(gated)))}"
    draw_strip(images, maps, path, title=title, masks=None if masks is None else masks[:count], labels=labels)


def draw_strip(images, maps, path, *, title, masks=None, labels=None):
    """Writes rows of an image and maps over it; arguments as for `strip`.

    Args:
        images: (N, S, S, 3) uint8, one in a row.
        maps: {title of a column: (N, S, S) floats in [0, 1]}; "M" is drawn alone, the others over the image.
        path: PNG to write.
        title: of the picture.
        masks, labels: of each image, or None.
    """
    heat = {"cmap": HEAT, "vmin": 0, "vmax": 1}
    columns = [("input", images, {}, None)]
    for name, values in maps.items():
        if name == "M":
            columns.append(("M, 0 to 1", values, heat, None))
            columns.append(("M, stretched", ops.convert_to_numpy(stretch(values)), heat, values))
        else:
            columns.append((name, overlay(images, values), {}, values))

    figure, axes = _grid(len(images), len(columns), title)
    for column, (name, pictures, style, values) in zip(axes.T, columns, strict=True):
        column[0].set_title(textwrap.fill(name, 14), fontsize=9, **text_style(name))
        for ax, picture in zip(column, pictures, strict=True):
            drawn = ax.imshow(picture, **style)
        captions = [""] * len(images)
        if name == "M, 0 to 1":
            figure.colorbar(drawn, ax=axes, location="right", label="M", fraction=0.03)
        if name == "M, stretched":
            captions = [f"{m.min():.3f} .. {m.max():.3f}" for m in values]
        if masks is not None and values is not None:
            scores = zip(captions, iou(values, masks), pointing(values, masks), strict=True)
            captions = [f"{text}\nIoU {share:.2f}{' •' if hit > 0.5 else ''}".strip() for text, share, hit in scores]
        for ax, caption in zip(column, captions, strict=True):
            ax.set_xlabel(caption, fontsize=8)
    for ax, name in zip(axes[:, 0], labels or [], strict=False):
        ax.set_ylabel(label(name, LABEL_WIDTH), fontsize=8, **text_style(name))
    save_figure(figure, path)


def columns(images, path):
    """Writes columns of images, each under its name.

    Args:
        images: {name: (N, H, W, 3) uint8}, as many in each.
        path: PNG to write.
    """
    figure, axes = _grid(len(next(iter(images.values()))), len(images), "")
    for column, (name, pictures) in zip(axes.T, images.items(), strict=True):
        column[0].set_title(name, **text_style(name))
        for ax, picture in zip(column, pictures, strict=True):
            ax.imshow(picture)
    save_figure(figure, path)


def confusion_matrix(matrix, class_names, path):
    """Writes the matrix as a heat map of shares of each true category.

    Args:
        matrix: (K, K) counts, rows the true, columns the predicted category.
        class_names: one per category; written, as are the shares, only where there are 20 or fewer.
        path: PNG to write.
    """
    matrix = np.asarray(matrix, float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = new_figure(8, 7)
    ax = figure.add_subplot(xlabel="predicted category", ylabel="true category")
    ax.set_title(f"Confusion matrix, accuracy {matrix.trace() / max(matrix.sum(), 1):.1%}")
    drawn = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=ax, label="share of the true category", fraction=0.04)
    if len(class_names) <= NAMED_CLASSES:
        ticks, names = range(len(class_names)), [label(name) for name in class_names]
        ax.set_xticks(ticks, names, rotation=45, ha="right", **text_style(*names))
        ax.set_yticks(ticks, names, **text_style(*names))
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.5 else "black"
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=color)
    save_figure(figure, path)


def curves(rows, path):
    """Writes one panel for each metric over the epochs, training and validation together.

    Args:
        rows: dicts with `epoch` and any metrics, numbers or their text, empty where a metric was not taken, as
            `csv.DictReader` gives them of a metrics.csv.
        path: PNG to write.
    """
    metrics = _metrics(rows)
    width, height = min(len(metrics), 3), -(-len(metrics) // 3)
    figure = new_figure(4 * width, 3 * height)
    for i, metric in enumerate(metrics, 1):
        _draw_curve(figure.add_subplot(height, width, i), rows, metric)
    save_figure(figure, path)


def curve_panels(rows):
    """Returns {metric: PNG of its panel}; arguments as for `curves`."""
    panels = {}
    for metric in _metrics(rows):
        figure = new_figure(3.6, 2.7)
        _draw_curve(figure.subplots(), rows, metric)
        panels[metric] = png(figure)
    return panels


def _metrics(rows):
    return list(dict.fromkeys(key.removeprefix("val_") for row in rows for key in row if key != "epoch"))


def _draw_curve(ax, rows, metric):
    for key, name in ((metric, "training"), (f"val_{metric}", "validation")):
        points = [(float(row["epoch"]), float(row[key])) for row in rows if row.get(key) not in (None, "")]
        if points:
            ax.plot(*zip(*points, strict=True), label=name, marker=_marker(len(points)))
    ax.set(title=metric, xlabel="epoch")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if len(rows) == 1:
        ax.set_xlim(float(rows[0]["epoch"]) - 1, float(rows[0]["epoch"]) + 1)
    ax.grid(alpha=0.3)
    ax.legend()


def _marker(points):
    """Returns the mark of each point of a curve: one alone has no line to be seen by, many need none."""
    return "o" if points == 1 else "." if points < 30 else None


def _to_uint8(images):
    """Returns images in [-1, 1] as uint8, the inverse of `scale`."""
    return np.clip(np.round((ops.convert_to_numpy(images) + 1) * 127.5), 0, 255).astype(np.uint8)


def _grid(rows, columns, title):
    """Returns a figure and its (rows, columns) axes for images, without ticks."""
    figure = new_figure(CELL * columns + 0.6, CELL * rows + 0.6)
    figure.suptitle(title, **text_style(title))
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    return figure, axes


def new_figure(width, height):
    """Returns an empty figure, inches; without pyplot there is no display and no global state, and PNG is Agg's."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def png(figure):
    """Returns a figure as the content of a PNG file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)  # `text_style` says it once
        figure.savefig(content, format="png")
    return content.getvalue()


def save_figure(figure, path):
    """Writes a figure as a PNG that is whole when it appears under its name.

    Raises:
        UserError: it cannot be written; what was at `path` before is still there.
    """
    write_bytes(pathlib.Path(path), png(figure))
