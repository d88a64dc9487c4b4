"""What the corruptions are made of: filters, resampling and random layers of float images.

Images are (N, C, H, W) float32. Filters repeat the border pixel. No sum runs over images, so what comes out for an
image does not depend on the others.
"""

import numpy as np
from scipy import ndimage

# The side in pixels for which the original's lengths are meant.
SIDE = 32
FERNS = 10


def relative_side(x):
    """Returns how many times longer than at 32 pixels a length is, by the shorter side of the images."""
    return min(x.shape[2:]) / SIDE


def normal(rngs, *shape):
    """Returns (N, *shape) standard normal float32, each image's from its own generator."""
    return np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])


def uniform(rngs, low, high, *shape):
    """Returns (N, *shape) float32 uniform in [low, high), each image's from its own generator."""
    return low + np.float32(high - low) * np.stack([rng.random(shape, np.float32) for rng in rngs])


def small_grid(x):
    """Returns the (H, W) of images whose shorter side were 32: where random layers are drawn for any size."""
    return tuple(round(size / relative_side(x)) for size in x.shape[2:])


def enlarged(layer, x, factor=1):
    """Returns a layer drawn on the `small_grid` of images `x`, at their size, its middle enlarged by `factor`."""
    return zoom(layer, factor * relative_side(x), *x.shape[2:])


def gaussian(sigma, reach):
    """Returns (2 * reach + 1,) float32 weights of a Gaussian, sum 1; `sigma` and `reach` in pixels."""
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def blur(x, sigma):
    """Returns images convolved with a Gaussian of standard deviation `sigma` pixels, cut off at 4 `sigma`."""
    return ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest", truncate=4)


def bilinear(positions, size):
    """Returns (len(positions), size) float32 weights that read a line of `size` pixels at positions from 0."""
    positions = np.clip(positions, 0, size - 1)
    return np.maximum(1 - abs(positions[:, None] - np.arange(size)), 0).astype(np.float32)


def zoom(x, factor, height, width):
    """Returns the middle of each image enlarged by `factor` to (N, C, height, width), bilinearly."""

    def line(old, new):
        return bilinear((np.arange(new) - (new - 1) / 2) / factor + (old - 1) / 2, old)

    # Matrices for the rows and for the columns: faster than a loop over pixels.
    return line(x.shape[2], height) @ x @ line(x.shape[3], width).T


def convolve(x, kernel):
    """Returns images correlated with one `kernel`, (2a + 1, 2b + 1) floats."""
    return ndimage.correlate(x, kernel[None, None], mode="nearest")


def smear(x, radius, sigma, angles):
    """Returns images smeared in one direction each: a trail of `2 * radius + 1` pixels that fades like half a Gaussian.

    Args:
        x: (N, C, H, W) float32.
        radius, sigma: half the length of the trail and its standard deviation, pixels.
        angles: (N,) radians, where each trail points: 0 to the left, pi / 2 upwards.
    """
    height, width = x.shape[2:]
    # Beyond 4 sigma lies less than a ten-thousandth of the light.
    steps = np.arange(int(min(2 * radius, 4 * sigma)) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    reach = len(steps)
    downs, rights = (np.rint(steps * f(angles)[:, None]).astype(int) + reach for f in (np.sin, np.cos))
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    result = np.zeros_like(x)
    for image, source, down, right in zip(result, padded, downs, rights, strict=True):
        for weight, i, j in zip(weights, down, right, strict=True):
            image += weight * source[:, i : i + height, j : j + width]
    return result


def look_up(x, rows, columns):
    """Returns images whose pixel (i, j) is pixel (rows[n, i, j], columns[n, i, j]) of image n; (N, H, W) integers."""
    height, width = x.shape[2:]
    places = np.clip(rows, 0, height - 1) * width + np.clip(columns, 0, width - 1)
    flat = x.reshape(*x.shape[:2], -1)
    return np.take_along_axis(flat, places.reshape(len(x), 1, -1), axis=2).reshape(x.shape)


def warp(x, rows, columns):
    """Returns what `look_up` does, at fractional positions, bilinearly; mirrored, the border pixel not repeated."""
    height, width = x.shape[2:]
    rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    top, left = top.astype(int), left.astype(int)
    upper = (1 - right) * look_up(x, top, left) + right * look_up(x, top, left + 1)
    lower = (1 - right) * look_up(x, top + 1, left) + right * look_up(x, top + 1, left + 1)
    return (1 - down) * upper + down * lower


def plasma(rngs, height, width, decay):
    """Returns (N, height, width) clouds in [0, 1]: diamond-square on a torus, displacements falling by `decay`**2."""
    side = 1 << (max(height, width) - 1).bit_length()
    noise = uniform(rngs, -1, 1, side, side)
    field = np.zeros_like(noise)
    step, amplitude = side, np.float32(1)
    while step > 1:
        half = step // 2
        on, between = slice(None, None, step), slice(half, None, step)
        corners = field[:, on, on]
        across, down = corners + np.roll(corners, -1, 2), corners + np.roll(corners, -1, 1)
        centres = (across + np.roll(across, -1, 1)) / 4 + amplitude * noise[:, between, between]
        field[:, between, between] = centres
        field[:, on, between] = (across + centres + np.roll(centres, 1, 1)) / 4 + amplitude * noise[:, on, between]
        field[:, between, on] = (down + centres + np.roll(centres, 1, 2)) / 4 + amplitude * noise[:, between, on]
        step, amplitude = half, amplitude / np.float32(decay**2)
    field -= field.min((1, 2), keepdims=True)
    return (field / field.max((1, 2), keepdims=True))[:, :height, :width]


def ferns(rngs, height, width):
    """Returns (N, height, width) crystals in [0, 1]: stems with branches at 60 degrees, tapering to their tips."""
    unit = min(height, width) / SIDE
    rows, columns = ((places + 0.5) / np.float32(unit) for places in np.indices((height, width), np.float32))
    places, lengths = uniform(rngs, 0, 1, 2, FERNS, 1, 1), uniform(rngs, 12, 26, FERNS, 1, 1)
    angles = uniform(rngs, 0, 2 * np.pi, FERNS, 1, 1)
    ice = np.zeros((len(rngs), height, width), np.float32)
    for fern in range(FERNS):
        down, right = rows - places[:, 0, fern] * (height / unit), columns - places[:, 1, fern] * (width / unit)
        sin, cos, length = np.sin(angles[:, fern]), np.cos(angles[:, fern]), lengths[:, fern]
        # 32nds of the side, `along` the stem from its root and `across` it; a fern's middle is at its place.
        along, across = right * cos + down * sin + length / 2, abs(down * cos - right * sin)
        stem = np.clip(1.2 - across, 0, 1)
        branches = (0.5 + 0.5 * np.cos(2 * np.pi / 3.6 * (along - across / 3**0.5))) ** 2 * (1 - along / length / 2)
        outline = np.clip(0.3 * (length - along) - across + 0.5, 0, 1) * np.clip(along, 0, 1)
        ice = np.maximum(ice, outline * (0.25 + 0.75 * np.maximum(stem, branches)))
    return ice


def _mirrored(positions, size):
    """Returns positions up to a whole `size` outside [0, size - 1] folded back."""
    return size - 1 - abs(size - 1 - abs(positions))
