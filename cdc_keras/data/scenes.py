"""The scenes of `shapes`: what is drawn at random, and the images and factors that become of it."""

import numpy as np

from cdc_keras.data.dataset import Split
from cdc_keras.data.drawing import OUTLINES, TEXTURES, hsv_to_rgb, pixel_centres, rotate
from cdc_keras.errors import UserError

CLASS_NAMES, TEXTURE_NAMES = tuple(OUTLINES), tuple(TEXTURES)

# The hue of a biased background lies this close to its category's hue; the ten hues are 0.1 apart, so none overlap.
HUE_SPREAD = 0.02
# Every shape lies inside the image: a centre is at least 0.36 from the border and no shape reaches beyond its scale.
SCALE_RANGE = (0.22, 0.34)
CENTRE_RANGE = (0.36, 0.64)
# HSV value: the shape is lighter than the lightest background, whatever the two hues are. Half of it is much darker
# than the other, so that every category shows its rotation as clearly as an arrow does: a T free of the category keeps
# no more of the rotation than this.
BACKGROUND_VALUE = (0.15, 0.45)
SHAPE_VALUE = (0.55, 1.0)
BAR_VALUE = 0.7
BACKGROUND_SATURATION = 0.75
SHAPE_SATURATION = 0.45
NOISE = 0.02
# At difficulty 1: the shape's value is lower by so much, the noise higher, and so many bars lie behind it.
LOST_CONTRAST, MORE_NOISE, CLUTTER = 0.35, 0.13, 8
CHUNK = 512


def draw_scenes(rng, count, background_bias, difficulty=0.0):
    """Returns the (labels, foregrounds, backgrounds) of images that `render` takes; bias changes backgrounds only.

    Difficulty adds clutter to the backgrounds, and changes nothing else of what is drawn.

    Returns:
        The labels, (count,) int32, and name -> (count, ...) array of everything about the shapes and about what lies
        behind them: the factors of `shapes` and where in its texture a background lies.

    Raises:
        UserError: `background_bias` or `difficulty` outside [0, 1].
    """
    if not 0 <= difficulty <= 1:
        raise UserError(f"difficulty is from 0 to 1, but it is {difficulty}")
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
    if bars := round(CLUTTER * difficulty):
        # Each bar: its centre, its direction, half its length, its hue.
        low, high = (0, 0, 0, 0.05, 0), (1, 1, np.pi, 0.15, 1)
        backgrounds["clutter"] = np.random.Generator(rng.bit_generator.jumped()).uniform(low, high, (count, bars, 5))
    foregrounds, backgrounds = ({n: v.astype(np.float32) for n, v in d.items()} for d in (foregrounds, backgrounds))
    return labels, foregrounds, {"texture": texture.astype(np.int32), **backgrounds}


def render(labels, foregrounds, backgrounds, rng, image_size, difficulty=0.0):
    """Returns a `Split` of the shapes on the backgrounds; its `factors` are those that can be seen, and always `mask`.

    Args:
        labels, foregrounds, backgrounds: as `draw_scenes` gives them. Without `foregrounds` (None) there is no shape,
            without `backgrounds` it lies on black.
        rng: draws the pixel noise.
        image_size: height and width, pixels.
        difficulty: in [0, 1]; takes contrast from the shape and adds noise.

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
            pixels = hsv_to_rgb(chunk["hue"][:, None, None], BACKGROUND_SATURATION, value)
            for bar in np.moveaxis(chunk.get("clutter", np.empty((len(pixels), 0, 5))), 1, 0):
                pixels = _cover(pixels, *_bar(bar, image_size))
        if foregrounds is not None:
            chunk = take(foregrounds, rows)
            x, y = _own_axes(chunk, image_size)
            distance = _signed_distance(labels[rows], x, y)
            low, high = SHAPE_VALUE
            scale = chunk["scale"][:, None, None]
            lighter = np.clip(0.5 + x * scale * image_size, 0, 1)  # within a pixel
            value = low + (high - low) * lighter - np.float32(LOST_CONTRAST * difficulty)
            colour = hsv_to_rgb(chunk["shape_hue"][:, None, None], SHAPE_SATURATION, value)
            pixels = _cover(pixels, colour, distance * scale)
            masks[rows] = distance < 0
        pixels += np.float32(NOISE + MORE_NOISE * difficulty) * rng.standard_normal(pixels.shape, np.float32)
        images[rows] = np.clip(pixels * 255 + 0.5, 0, 255)
    # Where in its texture a background lies is no factor, because nobody asks about it.
    seen = {name: backgrounds[name] for name in ("texture", "hue")} if backgrounds is not None else {}
    return Split(images, labels, {**seen, **(foregrounds or {}), "mask": masks})


def take(values, rows):
    """Returns {name: array} of `rows`, an index array or a slice."""
    return {name: v[rows] for name, v in values.items()}


def _cover(pixels, colour, distance):
    """Returns the pixels under a colour where the distance, (N, S, S) in fractions of the side, is negative.

    A pixel whose centre is half a pixel inside or more is covered, half a pixel outside or more is not.
    """
    cover = np.clip(0.5 - distance * distance.shape[1], 0, 1)[..., None]
    return (1 - cover) * pixels + cover * colour


def _bar(bar, image_size):
    """Returns (colour, distance) of bars, (N, 5): narrow and almost as light as shapes."""
    x, y = pixel_centres(image_size)
    x, y = rotate(x - bar[:, 0, None, None], y - bar[:, 1, None, None], bar[:, 2])
    distance = np.maximum(abs(x) - bar[:, 3, None, None], abs(y) - 0.025).astype(np.float32)
    return hsv_to_rgb(bar[:, 4, None, None], SHAPE_SATURATION, np.float32(BAR_VALUE)), distance


def _background_value(backgrounds, image_size):
    """Returns (N, S, S) HSV value of each background."""
    x, y = pixel_centres(image_size)
    x, y = rotate(x - 0.5, y - 0.5, backgrounds["turn"])
    phase, frequency = backgrounds["phase"], backgrounds["frequency"]
    level = np.empty(x.shape, np.float32)
    for index, name in enumerate(TEXTURE_NAMES):
        rows = backgrounds["texture"] == index
        u = x[rows] * frequency[rows, None, None] + phase[rows, :1, None]
        v = y[rows] * frequency[rows, None, None] + phase[rows, 1:, None]
        level[rows] = TEXTURES[name](u, v, x[rows], phase[rows, :1, None])
    low, high = BACKGROUND_VALUE
    return low + (high - low) * np.clip(level, 0, 1)


def _own_axes(foregrounds, image_size):
    """Returns x, y of every pixel centre in the axes of each shape, (N, S, S): 0 at its centre, 1 at its radius."""
    x, y = pixel_centres(image_size)
    x, y = x - foregrounds["x"][:, None, None], foregrounds["y"][:, None, None] - y
    x, y = rotate(x, y, foregrounds["rotation"])
    scale = foregrounds["scale"][:, None, None]
    return x / scale, y / scale


def _signed_distance(labels, x, y):
    """Returns (N, S, S) distance to the outline of a shape of radius 1, negative inside; x and y are its own axes."""
    distance = np.empty(x.shape, np.float32)
    for index, name in enumerate(CLASS_NAMES):
        rows = labels == index
        distance[rows] = OUTLINES[name](x[rows], y[rows])
    return distance
