"""The synthetic set `shapes`: ten shapes on backgrounds that know, or do not know, the category. No files.

Everything beside the category is a known factor, so what a context holds can be measured instead of guessed, and
`background_bias` makes the situation that the method is for: a background that predicts the category in training only.
"""

import numpy as np

from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.errors import UserError

CLASS_NAMES = ("circle", "ring", "square", "triangle", "star", "cross", "crescent", "hexagon", "heart", "arrow")
TEXTURE_NAMES = ("plain", "gradient", "stripes", "checker", "dots", "waves")

# The hue of a biased background lies this close to its category's hue; the ten hues are 0.1 apart, so none overlap.
HUE_SPREAD = 0.02
# Every shape lies inside the image: a centre is at least 0.36 from the border and no shape reaches beyond its scale.
SCALE_RANGE = (0.22, 0.34)
CENTRE_RANGE = (0.36, 0.64)
# HSV value: the shape is lighter than the lightest background, whatever the two hues are.
BACKGROUND_VALUE = (0.15, 0.45)
BACKGROUND_SATURATION = 0.75
SHAPE_SATURATION = 0.45
NOISE = 0.02
CHUNK = 512


def load_shapes(*, seed, background_bias=0.0, image_size=32, train_size=10_000, validation_size=1_000, test_size=2_000):
    """Returns the `Dataset` of freshly rendered shapes; the same arguments give the same bytes.

    Training and validation share the bias, the test split has none: its background says nothing about the category.

    Args:
        seed: every split has its own child of this seed.
        background_bias: probability in [0, 1] that a category fixes its background in training and validation.
        image_size: height and width, pixels.
        train_size, validation_size, test_size: images per split; validation may be 0.

    Raises:
        UserError: `background_bias` outside [0, 1] or `image_size` below 8.
    """
    train_seed, validation_seed, test_seed = np.random.SeedSequence(seed).spawn(3)
    biased = {"background_bias": background_bias, "image_size": image_size}
    return Dataset(
        name="shapes",
        class_names=CLASS_NAMES,
        image_size=image_size,
        train=shapes(train_size, seed=train_seed, **biased),
        validation=shapes(validation_size, seed=validation_seed, **biased),
        test=shapes(test_size, seed=test_seed, image_size=image_size),
    )


def shapes(count, *, seed, background_bias=0.0, image_size=32):
    """Returns a `Split` of `count` rendered shapes, categories balanced and shuffled, every factor known.

    The bias changes backgrounds only: two calls that differ in nothing else draw the same shapes in the same places.

    Args:
        count: number of images.
        seed: anything `numpy.random.default_rng` takes.
        background_bias: probability in [0, 1] that an image's background is its category's own texture and hue, instead
            of an independent draw.
        image_size: height and width, pixels.

    Returns:
        A `Split` whose `factors` are `texture` (index into `TEXTURE_NAMES`), `hue` and `shape_hue` in [0, 1), the
        centre `x`, `y` (fractions of the side, from the left and the top), `scale` (radius, fraction of the side),
        `rotation` (radians, counter-clockwise) and `mask`, (count, H, W) bool.

    Raises:
        UserError: `background_bias` outside [0, 1] or `image_size` below 8.
    """
    rng = np.random.default_rng(seed)
    return render(*draw_scenes(rng, count, background_bias), rng, image_size)


def draw_scenes(rng, count, background_bias):
    """Returns the (labels, foregrounds, backgrounds) of images that `render` takes; bias changes backgrounds only.

    Returns:
        The labels, (count,) int32, and name -> (count, ...) array of everything about the shapes and about what lies
        behind them: the factors of `shapes` and where in its texture a background lies.

    Raises:
        UserError: `background_bias` outside [0, 1].
    """
    if not 0 <= background_bias <= 1:
        raise UserError(f"background_bias is a probability, so from 0 to 1, but it is {background_bias}")
    labels = rng.permutation(np.arange(count) % len(CLASS_NAMES)).astype(np.int32)
    biased = rng.random(count) < background_bias
    own_hue = labels / len(CLASS_NAMES) + rng.uniform(-HUE_SPREAD, HUE_SPREAD, count)
    hue = np.where(biased, own_hue % 1, rng.random(count))
    texture = np.where(biased, labels % len(TEXTURE_NAMES), rng.integers(len(TEXTURE_NAMES), size=count))
    foregrounds = {
        "shape_hue": rng.random(count),
        "x": rng.uniform(*CENTRE_RANGE, count),
        "y": rng.uniform(*CENTRE_RANGE, count),
        "scale": rng.uniform(*SCALE_RANGE, count),
        "rotation": rng.uniform(0, 2 * np.pi, count),
    }
    backgrounds = {
        "hue": hue,
        "phase": rng.random((count, 2)),
        "turn": rng.uniform(0, 2 * np.pi, count),
        "frequency": rng.uniform(2.5, 4, count),
    }
    foregrounds, backgrounds = ({n: v.astype(np.float32) for n, v in d.items()} for d in (foregrounds, backgrounds))
    return labels, foregrounds, {"texture": texture.astype(np.int32), **backgrounds}


def render(labels, foregrounds, backgrounds, rng, image_size):
    """Returns a `Split` of the shapes on the backgrounds; its `factors` are those that can be seen, and always `mask`.

    Args:
        labels, foregrounds, backgrounds: as `draw_scenes` gives them. Without `foregrounds` (None) there is no shape,
            without `backgrounds` it lies on black.
        rng: draws the pixel noise.
        image_size: height and width, pixels.

    Raises:
        UserError: `image_size` below 8.
    """
    if image_size < 8:
        raise UserError(f"shapes cannot be told apart below 8 pixels; image_size is {image_size}: give 8 or more")
    count = len(labels)
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    masks = np.zeros((count, image_size, image_size), bool)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        pixels = np.zeros(images[rows].shape, np.float32)
        if backgrounds is not None:
            chunk = take(backgrounds, rows)
            value = _background_value(chunk, image_size)
            pixels = _hsv_to_rgb(chunk["hue"][:, None, None], BACKGROUND_SATURATION, value)
        if foregrounds is not None:
            chunk = take(foregrounds, rows)
            colour = _hsv_to_rgb(chunk["shape_hue"][:, None, None], SHAPE_SATURATION, np.float32(1))
            distance = _signed_distance(labels[rows], chunk, image_size)
            # A pixel whose centre is half a pixel inside or more is covered, half a pixel outside or more is not.
            cover = np.clip(0.5 - distance * image_size, 0, 1)[..., None]
            pixels = (1 - cover) * pixels + cover * colour
            masks[rows] = distance < 0
        pixels += NOISE * rng.standard_normal(pixels.shape, np.float32)
        images[rows] = np.clip(pixels * 255 + 0.5, 0, 255)
    # Where in its texture a background lies is no factor, because nobody asks about it.
    seen = {name: backgrounds[name] for name in ("texture", "hue")} if backgrounds is not None else {}
    return Split(images, labels, {**seen, **(foregrounds or {}), "mask": masks})


def take(values, rows):
    """Returns {name: array} of `rows`, an index array or a slice."""
    return {name: v[rows] for name, v in values.items()}


def _pixel_centres(image_size):
    """Returns x from the left and y from the top of every pixel centre, (1, S, S) each, fractions of the side."""
    centres = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return x[None], y[None]


def _rotate(x, y, angle):
    """Returns (x, y) as seen by axes that are turned by `angle`, (N,) radians."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def _hsv_to_rgb(hue, saturation, value):
    """Returns (..., 3) RGB in [0, 1] of hue, saturation and value in [0, 1]; they broadcast."""
    position = (hue[..., None] * 6 + np.array([5, 3, 1], np.float32)) % 6
    ramp = np.clip(np.minimum(position, 4 - position), 0, 1)
    return value[..., None] * (1 - saturation * ramp)


def _background_value(backgrounds, image_size):
    """Returns (N, S, S) HSV value of each background."""
    x, y = _pixel_centres(image_size)
    x, y = _rotate(x - 0.5, y - 0.5, backgrounds["turn"])
    phase, frequency = backgrounds["phase"], backgrounds["frequency"]
    level = np.empty(x.shape, np.float32)
    for index, name in enumerate(TEXTURE_NAMES):
        rows = backgrounds["texture"] == index
        u = x[rows] * frequency[rows, None, None] + phase[rows, :1, None]
        v = y[rows] * frequency[rows, None, None] + phase[rows, 1:, None]
        level[rows] = TEXTURES[name](u, v, x[rows], phase[rows, :1, None])
    low, high = BACKGROUND_VALUE
    return low + (high - low) * np.clip(level, 0, 1)


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


def _signed_distance(labels, foregrounds, image_size):
    """Returns (N, S, S) distance to the shape's outline, negative inside, fractions of the side."""
    x, y = _pixel_centres(image_size)
    x, y = x - foregrounds["x"][:, None, None], foregrounds["y"][:, None, None] - y
    x, y = _rotate(x, y, foregrounds["rotation"])
    scale = foregrounds["scale"][:, None, None]
    distance = np.empty(x.shape, np.float32)
    for index, name in enumerate(CLASS_NAMES):
        rows = labels == index
        distance[rows] = OUTLINES[name](x[rows] / scale[rows], y[rows] / scale[rows])
    return distance * scale


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
