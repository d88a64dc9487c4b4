"""The backgrounds challenge on images with masks: their objects cut out, and pasted on the backgrounds of others.

Where `data.backgrounds` draws scenes anew, here nobody knows what is behind an object.
"""

import numpy as np
from PIL import Image, ImageFilter

from cdc_keras.data.backgrounds import another
from cdc_keras.data.dataset import Split
from cdc_keras.errors import UserError

PASTED = ("original", "only_fg", "only_bg", "mixed_same", "mixed_rand", "mixed_next")
EDGE = 1 / 128  # deviation of the blur of an object's edge, share of the side
GREY = 128  # where there is no background at all


def pasted_variants(split, num_classes, *, seed):
    """Returns each of `PASTED` -> `Split`, row by row with the same label.

    Xiao et al. 2020, "Noise or Signal: The Role of Image Backgrounds in Object Recognition", Table 1. The background
    gap is the accuracy on `mixed_same` minus that on `mixed_rand`.

    * `original`: the images themselves.
    * `only_fg`: the object on black.
    * `only_bg`: the background. The object's box is covered with tiles of the largest strip beside it.
    * `mixed_same`, `mixed_rand`, `mixed_next`: the object on such a background of another image, which is of the same
      category, of a random one (which may be the same), or of the next.

    The factors of a variant are those of the objects; `only_bg` has none.

    Deviation: objects are pasted with a soft edge, and masks are those of the data set, in the paper those of GrabCut.

    Args:
        split: a `Split` whose factors hold `mask`, two images or more of every category.
        num_classes: number of categories.
        seed: anything `numpy.random.default_rng` takes; chooses the backgrounds.

    Raises:
        UserError: there are no masks, or too few images of a category.
    """
    if "mask" not in split.factors:
        raise UserError("backgrounds are exchanged where the objects' masks are known, and here they are not")
    counts = np.bincount(split.labels, minlength=num_classes)
    if counts.min() < 2:
        raise UserError(
            "an object is pasted on the background of another image of its category, so every category needs two "
            f"images to score; category number {counts.argmin()} has {counts.min()}"
        )
    masks, rng = split.factors["mask"], np.random.default_rng(seed)
    opacity = np.stack([_soft(mask) for mask in masks])
    backgrounds = np.stack([_background(*pair) for pair in zip(split.images, masks, strict=True)])
    categories = {
        "mixed_same": split.labels,
        "mixed_rand": rng.integers(num_classes, size=len(split)),
        "mixed_next": (split.labels + 1) % num_classes,
    }
    images = {
        "original": split.images,
        "only_fg": _on(split.images, opacity, np.zeros_like(split.images)),
        "only_bg": backgrounds,
    }
    for name, wanted in categories.items():
        images[name] = _on(split.images, opacity, backgrounds[another(rng, split.labels, wanted)])
    return {
        name: Split(images[name], split.labels, {} if name == "only_bg" else dict(split.factors)) for name in PASTED
    }


def _soft(mask):
    """Returns how opaque an object is, (S, S) floats in [0, 1], from its mask."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(EDGE * len(mask))), np.float32) / 255


def _on(images, opacity, backgrounds):
    """Returns the objects of images on backgrounds, (N, S, S, 3) uint8 all."""
    opacity = opacity[..., None]
    return np.round(opacity * images + (1 - opacity) * backgrounds).astype(np.uint8)


def _background(image, mask):
    """Returns an image without its object, (S, S, 3) uint8."""
    if not mask.any():
        return image
    size = len(mask)
    (top, bottom), (left, right) = (
        (places[0], places[-1] + 1) for places in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    )
    margin = int(np.ceil(3 * EDGE * size))  # where the soft edge has ended
    top, left = max(top - margin, 0), max(left - margin, 0)
    bottom, right = min(bottom + margin, size), min(right + margin, size)
    strips = image[:top], image[bottom:], image[:, :left], image[:, right:]
    strip = max(strips, key=lambda x: x.shape[0] * x.shape[1])
    covered = image.copy()
    if not strip.size:  # the object's box is the whole image
        outside = image[~mask]
        covered[:] = outside.mean(axis=0) if len(outside) else GREY
        return covered
    height, width = bottom - top, right - left
    tiles = np.tile(strip, (-(-height // strip.shape[0]), -(-width // strip.shape[1]), 1))
    covered[top:bottom, left:right] = tiles[:height, :width]
    return covered
