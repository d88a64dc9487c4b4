"""How `shapes` are drawn: colours, the textures of backgrounds, and the outlines of shapes by signed distance."""

import numpy as np


def pixel_centres(image_size):
    """Returns x from the left and y from the top of every pixel centre, (1, S, S) each, fractions of the side."""
    centres = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return x[None], y[None]


def rotate(x, y, angle):
    """Returns (x, y) as seen by axes that are turned by `angle`, (N,) radians."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def hsv_to_rgb(hue, saturation, value):
    """Returns (..., 3) RGB in [0, 1] of hue, saturation and value in [0, 1]; they broadcast."""
    position = (hue[..., None] * 6 + np.array([5, 3, 1], np.float32)) % 6
    ramp = np.clip(np.minimum(position, 4 - position), 0, 1)
    return value[..., None] * (1 - saturation * ramp)


def _cos(cycles):
    return np.cos(2 * np.pi * cycles)


# Level in [0, 1] after clipping, from u, v (cycles), x (fraction of the side, 0 in the middle) and the phase. The
# factors before the cosines make edges of about a pixel at 32 pixels: steep enough for a pattern, soft enough not to
# alias.
TEXTURES = {
    "plain": lambda u, v, x, phase: 0.4 + 0.6 * phase,
    "gradient": lambda u, v, x, phase: 0.5 + 0.8 * x,
    "stripes": lambda u, v, x, phase: 0.5 + 1.5 * _cos(u),
    "checker": lambda u, v, x, phase: 0.5 + 2 * _cos(u / 2) * _cos(v / 2),
    "dots": lambda u, v, x, phase: 2 * (_cos(u) + _cos(v)) - 0.9,
    "waves": lambda u, v, x, phase: 0.5 + 0.4 * (_cos(0.31 * u + 0.52 * _cos(0.4 * v)) + _cos(0.6 * v + 5 * phase)),
}


def _disc(x, y, radius, centre=(0, 0)):
    return np.hypot(x - centre[0], y - centre[1]) - radius


def _box(x, y, half_width, half_height, centre=(0, 0)):
    return np.maximum(abs(x - centre[0]) - half_width, abs(y - centre[1]) - half_height)


def _corners(x, y, count, inner):
    """Outline with `count` corners on the unit circle and, between them, corners at radius `inner`."""
    half = np.pi / count
    angle = abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    # By symmetry one edge is enough: from the outer corner (1, 0) to the inner corner at angle `half`.
    edge_x, edge_y = inner * np.cos(half) - 1, inner * np.sin(half)
    return ((radius * np.cos(angle) - 1) * edge_y - radius * np.sin(angle) * edge_x) / np.hypot(edge_x, edge_y)


def _heart(x, y):
    """A square on its corner and a disc on each of its upper edges."""
    side = 0.53
    diamond = (abs(x) + abs(y + 0.2)) / np.sqrt(2) - side
    offset = side / np.sqrt(2)
    return np.minimum(diamond, _disc(abs(x), y, side, (offset, offset - 0.2)))


def _arrow(x, y):
    """A shaft and a head that point along x; the shaft reaches far into the head, or a seam would show between them."""
    slope = 0.75
    head = np.maximum((slope * (x - 1) + abs(y)) / np.hypot(slope, 1), 0.05 - x)
    return np.minimum(head, _box(x, y, 0.7, 0.22, (-0.25, 0)))


# Distances of shapes of about radius 1; exact near the outline, which is where they are looked at.
OUTLINES = {
    "circle": lambda x, y: _disc(x, y, 0.85),
    "ring": lambda x, y: abs(_disc(x, y, 0.7)) - 0.2,
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "triangle": lambda x, y: _corners(x, y, 3, 0.5),
    "star": lambda x, y: _corners(x, y, 5, 0.42),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.27), _box(x, y, 0.27, 0.95)),
    "crescent": lambda x, y: np.maximum(_disc(x, y, 0.95), -_disc(x, y, 0.8, (0.5, 0))),
    "hexagon": lambda x, y: _corners(x, y, 6, np.cos(np.pi / 6)),
    "heart": _heart,
    "arrow": _arrow,
}
