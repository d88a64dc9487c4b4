"""Common corruptions of test images, seeded: how fast does a classifier fail when the pictures get worse?

Names and severities of CIFAR-10-C, Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", written anew from the description. Their published images are not these images: numbers
compare with one another here, with those of other papers only roughly.

Deviation: values are rounded to bytes at the end, where the original cuts them off, half a grey level darker. Filters
repeat the border pixel, where some of the original's mirror the image.
"""

import io

import numpy as np
from PIL import Image

from cdc_keras.data import corruption_parts as parts
from cdc_keras.errors import UserError

SEVERITIES = (1, 2, 3, 4, 5)
# Pixels handled at a time, a bound on the memory; the speed hardly depends on it.
CHUNK = 2**18
GREY = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
ICE = np.array([0.84, 0.93, 1], np.float32)[:, None, None]


def corrupt(images, name, severity, seed):
    """Returns (N, H, W, 3) uint8 images, corrupted; the same arguments give the same bytes.

    The randomness of an image depends on `seed`, `name`, `severity` and its place in the batch, not on other images:
    the first of many are corrupted as they are alone.

    Lengths in pixels (radii, standard deviations of blurs, sizes of flakes and drops) are the original's at 32 pixels
    and grow in proportion to the shorter side.

    Args:
        images: (N, H, W, 3) uint8, both sides 8 or more; N may be 0.
        name: one of `CORRUPTIONS`.
        severity: one of `SEVERITIES`, 5 the worst.
        seed: integer, 0 or more.

    Raises:
        UserError: an unknown name or severity, or something else than a batch of RGB bytes.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"a corruption is one of {', '.join(CORRUPTIONS)}, but it is {name!r}")
    if severity not in SEVERITIES:
        raise UserError(f"a severity is 1, 2, 3, 4 or 5, but it is {severity!r}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < 8:
        raise UserError(
            "images to corrupt are (N, H, W, 3) of uint8 with sides of 8 or more pixels, but these are "
            f"{images.shape} of {images.dtype}: give RGB bytes before any scaling"
        )
    function, *parameters = CORRUPTIONS[name]
    level, height, width = SEVERITIES.index(severity), *images.shape[1:3]
    key = (seed, list(CORRUPTIONS).index(name), level)
    result = np.empty_like(images)
    step = max(1, CHUNK // (height * width))
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        rngs = [np.random.default_rng((*key, start + place)) for place in range(len(chunk))]
        x = np.ascontiguousarray(chunk.transpose(0, 3, 1, 2)) / np.float32(255)
        x = function(x, rngs, *(values[level] for values in parameters))
        result[start : start + step] = _bytes(x)
    return result


def _bytes(x):
    """Returns (N, H, W, 3) uint8 of (N, 3, H, W) floats in [0, 1]; what is beyond is clipped."""
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def _gaussian_noise(x, rngs, std):
    return x + np.float32(std) * parts.normal(rngs, *x.shape[1:])


def _shot_noise(x, rngs, photons):
    counts = [rng.poisson(image * photons) for image, rng in zip(x, rngs, strict=True)]
    return np.stack(counts, dtype=np.float32) / np.float32(photons)


def _impulse_noise(x, rngs, share):
    """Salt and pepper, half each, on a `share` of the values; a pixel's three channels are hit independently."""
    dice = parts.uniform(rngs, 0, 1, *x.shape[1:])
    return np.where(dice < share / 2, 0, np.where(dice >= 1 - share / 2, 1, x))


def _defocus_blur(x, rngs, radius, rim):
    """Convolved with a disc of `radius` whose rim is softened by a Gaussian of `rim` pixels."""
    scale = parts.relative_side(x)
    softening = parts.gaussian(rim * scale, round(scale) or 1)
    reach = int(radius * scale) + len(softening) // 2
    offsets = np.arange(-reach, reach + 1)
    disc = (offsets**2 + offsets[:, None] ** 2 <= (radius * scale) ** 2).astype(np.float32)
    return parts.convolve(x, parts.convolve((disc / disc.sum())[None, None], np.outer(softening, softening))[0, 0])


def _glass_blur(x, rngs, sigma, delta, repeats):
    """Every pixel takes the colour of a random neighbour, between two blurs.

    Deviation: the original exchanges pixels one after the other; here all look at their neighbours at once.
    """
    scale = parts.relative_side(x)
    delta = max(round(delta * scale), 1)
    rows, columns = np.indices(x.shape[2:])
    x = parts.blur(x, sigma * scale)
    for _ in range(repeats):
        moves = np.stack([rng.integers(-delta, delta, (2, *x.shape[2:])) for rng in rngs])
        x = parts.look_up(x, rows + moves[:, 0], columns + moves[:, 1])
    return parts.blur(x, sigma * scale)


def _motion_blur(x, rngs, radius, sigma):
    scale = parts.relative_side(x)
    return parts.smear(x, radius * scale, sigma * scale, parts.uniform(rngs, -np.pi / 4, np.pi / 4))


def _zoom_blur(x, rngs, percent):
    """The mean of the image and of its enlargements by 1, 1.01, ... less than `percent` / 100.

    Deviation: the original's range takes its end in at the first two severities, by rounding.
    """
    factors = np.arange(100, percent) / 100
    total = x.copy()
    for factor in factors:
        total += parts.zoom(x, factor, *x.shape[2:])
    return total / np.float32(len(factors) + 1)


def _snow(x, rngs, mean, std, flake, threshold, radius, sigma, keep):
    """Flakes of `flake` pixels, smeared as they fall, over a picture that is whitened by 1 - `keep`."""
    scale = parts.relative_side(x)
    flakes = parts.enlarged(mean + np.float32(std) * parts.normal(rngs, 1, *parts.small_grid(x)), x, flake)
    flakes = np.where(flakes < threshold, 0, np.minimum(flakes, 1))
    falling = parts.uniform(rngs, -np.pi * 3 / 4, -np.pi / 4)
    layer = parts.smear(flakes, radius * scale, sigma * scale, falling)
    grey = (x * GREY).sum(1, keepdims=True)
    whitened = np.maximum(x, grey * 1.5 + 0.5)
    # The layer a second time, turned by half, doubles the flakes.
    return np.float32(keep) * x + np.float32(1 - keep) * whitened + layer + layer[:, :, ::-1, ::-1]


def _frost(x, rngs, keep, strength):
    """Ice on a window, added to the picture.

    Deviation: the original adds photographs of frost, and there are none here: fern-like crystals are drawn on a thin
    cloudy veil.
    """
    veil = 0.4 * parts.plasma(rngs, *x.shape[2:], 1.3)
    ice = np.maximum(veil, parts.ferns(rngs, *x.shape[2:]))[:, None]
    return np.float32(keep) * x + np.float32(strength) * ICE * ice


def _fog(x, rngs, strength, decay):
    """A cloud of `strength` added; the result is brought back to the brightness of the picture's lightest value."""
    lightest = x.max((1, 2, 3), keepdims=True)
    clouds = parts.plasma(rngs, *x.shape[2:], decay)[:, None]
    return (x + np.float32(strength) * clouds) * lightest / (lightest + np.float32(strength))


def _brightness(x, rngs, more):
    """`more` added to the value of HSV: all three channels grow in proportion."""
    value = x.max(1, keepdims=True)
    raised = np.minimum(value + np.float32(more), 1)
    return np.where(value > 0, x * raised / np.maximum(value, 1e-6), raised)


def _contrast(x, rngs, factor):
    """The distance to each channel's mean times `factor`."""
    mean = x.reshape(*x.shape[:2], -1).mean(2)[..., None, None]
    return (x - mean) * np.float32(factor) + mean


def _elastic_transform(x, rngs, alpha, sigma, affine):
    """Pixels moved by a random affine map and by smooth random displacements; all lengths are shares of the side.

    Deviation: both movements are made at once, and so interpolated once instead of twice.
    """
    side = min(x.shape[2:])
    rows, columns = np.indices(x.shape[2:], np.float32)
    # Three corners of a square in the middle, two thirds of the side long, are moved; the plane follows.
    corners = parts.uniform(rngs, -affine * side, affine * side, 3, 2, 1, 1)
    down = (rows - rows.mean()) / (2 * side / 3) + 0.5
    right = (columns - columns.mean()) / (2 * side / 3) - 0.5
    moves = corners[:, 1] + down * (corners[:, 0] - corners[:, 1]) + right * (corners[:, 1] - corners[:, 2])
    if alpha:
        ripples = parts.blur(parts.uniform(rngs, -1, 1, 2, *parts.small_grid(x)), sigma * parts.SIDE)
        moves = moves + np.float32(alpha * side) * parts.enlarged(ripples, x)
    return parts.warp(x, rows + moves[:, 0], columns + moves[:, 1])


def _through_pillow(x, change):
    """Returns the images after `change`, a function of one `PIL.Image`."""
    changed = [np.asarray(change(Image.fromarray(image))) for image in np.ascontiguousarray(_bytes(x))]
    return np.stack(changed).transpose(0, 3, 1, 2) / np.float32(255)


def _pixelate(x, rngs, factor):
    """Made smaller by `factor`, then as large as before, both by Pillow's box filter."""
    height, width = x.shape[2:]
    small = int(width * factor), int(height * factor)

    def change(image):
        return image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _through_pillow(x, change)


def _jpeg_compression(x, rngs, quality):
    def change(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file, formats=("JPEG",))

    return _through_pillow(x, change)


# Name -> function of (N, 3, H, W) float32 in [0, 1], a generator per image and parameters; then each parameter at the
# five severities, as CIFAR-10-C has it. The order is part of the seed.
CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (_defocus_blur, (0.3, 0.4, 0.5, 1, 1.5), (0.4, 0.5, 0.6, 0.2, 0.1)),
    "glass_blur": (_glass_blur, (0.05, 0.25, 0.4, 0.25, 0.4), (1, 1, 1, 1, 1), (1, 1, 1, 2, 2)),
    "motion_blur": (_motion_blur, (6, 6, 6, 8, 9), (1, 1.5, 2, 2, 2.5)),
    "zoom_blur": (_zoom_blur, (106, 111, 116, 121, 126)),
    "snow": (
        _snow,
        (0.1, 0.1, 0.15, 0.25, 0.3),
        (0.2, 0.2, 0.3, 0.3, 0.3),
        (1, 1, 1.75, 2.25, 1.25),
        (0.6, 0.5, 0.55, 0.6, 0.65),
        (8, 10, 10, 12, 14),
        (3, 4, 4, 6, 12),
        (0.95, 0.9, 0.9, 0.85, 0.8),
    ),
    "frost": (_frost, (1, 1, 0.9, 0.85, 0.75), (0.2, 0.3, 0.4, 0.4, 0.45)),
    "fog": (_fog, (0.2, 0.5, 0.75, 1, 1.5), (3, 3, 2.5, 2, 1.75)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        _elastic_transform,
        (0, 0.05, 0.08, 0.1, 0.1),
        (0, 0.2, 0.06, 0.04, 0.03),
        (0.08, 0.07, 0.06, 0.05, 0.03),
    ),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (_jpeg_compression, (80, 65, 58, 50, 40)),
}
