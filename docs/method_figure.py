"""Draws docs/method.png, the method in one picture: python docs/method_figure.py"""

import pathlib

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

OUT = pathlib.Path(__file__).parent / "method.png"
DATA, NETWORK, CONTEXT, GATE = "#f3f0e8", "#dce8f5", "#ffdd9c", "#d5edd5"  # fills, by what a box is
INK = "#222222"


def box(axes, x, y, symbol, words, fill, width=1.4):
    """Draws a box with its centre at (x, y): a symbol, and below it what that is."""
    height = 0.95
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=fill, edgecolor=INK))
    axes.text(x, y + 0.17, symbol, ha="center", va="center", fontsize=14, weight="bold", color=INK)
    axes.text(x, y - 0.24, words, ha="center", va="center", fontsize=9.4, color=INK)


def arrow(axes, *points):
    """Draws a line through the points, with a head at the last."""
    axes.plot(*zip(*points[:-1], strict=True), color=INK, linewidth=1.2)
    properties = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=properties)


def note(axes, x, y, text):
    axes.text(x, y, text, ha="center", va="center", fontsize=11, style="italic", color=INK)


def extractor(axes):
    """Draws how the extractor is trained."""
    axes.text(0, 5.75, "1. Train the extractor", fontsize=14, weight="bold", color=INK)
    row, low = 3.55, 1.75
    box(axes, 0.7, row, "x", "image", DATA)
    box(axes, 2.6, row, "E", "encoder", NETWORK)
    box(axes, 4.5, row, "T", "context", CONTEXT)
    box(axes, 6.4, row, "G", "decoder", NETWORK)
    box(axes, 8.3, row, "x′", "copy", DATA)
    for x in (0.7, 2.6, 4.5, 6.4):
        arrow(axes, (x + 0.7, row), (x + 1.2, row))
    box(axes, 6.4, 5.05, "y", "category", DATA)
    arrow(axes, (6.4, 4.575), (6.4, row + 0.475))
    box(axes, 4.5, low, "D", "discriminator", NETWORK, width=1.95)
    arrow(axes, (4.5, row - 0.475), (4.5, low + 0.475))
    box(axes, 7.0, low, "y?", "guess", DATA, width=1.5)
    arrow(axes, (5.475, low), (6.25, low))
    note(axes, 4.5, 0.95, "D learns to read y from T, E learns to hide it")


def classifier(axes, x):
    """Draws the gated classifier, whose left edge is at x."""
    axes.text(x, 5.75, "2. Gate a classifier", fontsize=14, weight="bold", color=INK)
    top, row, low = 4.75, 3.0, 1.4
    box(axes, x + 0.7, top, "x", "image", DATA)
    box(axes, x + 2.6, top, "E", "frozen", NETWORK)
    box(axes, x + 4.5, top, "T", "context", CONTEXT)
    box(axes, x + 6.6, top, "C", "channel weights", GATE, width=2.3)
    box(axes, x + 8.9, top, "M", "attention map", GATE, width=2.05)
    arrow(axes, (x + 1.4, top), (x + 1.9, top))
    arrow(axes, (x + 3.3, top), (x + 3.8, top))
    arrow(axes, (x + 5.2, top), (x + 5.45, top))
    arrow(axes, (x + 4.5, top + 0.475), (x + 4.5, 5.5), (x + 8.9, 5.5), (x + 8.9, top + 0.475))

    box(axes, x + 2.6, row, "…", "layers", NETWORK)
    box(axes, x + 4.5, row, "F", "features", DATA)
    box(axes, x + 7.75, row, "F′", "F · M · C", GATE, width=1.9)
    arrow(axes, (x + 0.7, top - 0.475), (x + 0.7, row), (x + 1.9, row))
    arrow(axes, (x + 3.3, row), (x + 3.8, row))
    arrow(axes, (x + 5.2, row), (x + 6.8, row))
    arrow(axes, (x + 4.9, row + 0.475), (x + 4.9, 3.875), (x + 6.1, 3.875), (x + 6.1, top - 0.475))
    arrow(axes, (x + 7.2, top - 0.475), (x + 7.2, row + 0.475))
    arrow(axes, (x + 8.4, top - 0.475), (x + 8.4, row + 0.475))

    box(axes, x + 4.5, low, "R", "residual", GATE, width=1.65)
    box(axes, x + 7.75, low, "ReLU", "F′ + R(F)", GATE, width=1.9)
    box(axes, x + 10.3, low, "…", "layers", NETWORK, width=1.5)
    box(axes, x + 10.3, row, "y?", "prediction", DATA, width=1.5)
    arrow(axes, (x + 4.5, row - 0.475), (x + 4.5, low + 0.475))
    arrow(axes, (x + 5.325, low), (x + 6.8, low))
    arrow(axes, (x + 7.75, row - 0.475), (x + 7.75, low + 0.475))
    arrow(axes, (x + 8.7, low), (x + 9.55, low))
    arrow(axes, (x + 10.3, low + 0.475), (x + 10.3, row - 0.475))


def main():
    figure = Figure(figsize=(13.8, 3.9))
    axes = figure.subplots()
    axes.set(xlim=(-0.1, 21), ylim=(0.7, 6.1))
    axes.axis("off")
    extractor(axes)
    axes.plot((9.45, 9.45), (0.9, 5.9), color="#bbbbbb", linewidth=1)
    classifier(axes, 9.9)
    figure.savefig(OUT, dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
