"""The backgrounds challenge on `shapes`: the same shapes on other backgrounds, on none, and the backgrounds alone.

What a classifier owes to the background shows as a difference of accuracies, because shapes, labels and order are the
same everywhere.
"""

import copy

import numpy as np

from cdc_keras.data.scenes import CLASS_NAMES, draw_scenes, render, take
from cdc_keras.errors import UserError

BACKGROUNDS = ("original", "mixed_same", "mixed_rand", "only_bg", "only_fg")


def background_variants(count, *, seed, background_bias, difficulty=0.0, image_size=32):
    """Each of `BACKGROUNDS` -> `Split` of `count` images; row by row the same label and the same pixel noise.

    Xiao et al. 2020, "Noise or Signal: The Role of Image Backgrounds in Object Recognition", Table 1. Their background
    gap is the accuracy on `mixed_same` minus the accuracy on `mixed_rand`: what a background of the right category is
    worth when both are equally pasted.

    * `original`: `shapes` of the same arguments.
    * `mixed_same`: the shape on the background of another image of its category.
    * `mixed_rand`: the shape on the background of another image of a random category. As in the paper the category is
      drawn without a look at the label, so one time in ten it is the shape's own.
    * `only_bg`: the background without the shape; the label is that of the shape that was there.
    * `only_fg`: the shape on black.

    `factors` tell what is seen: texture and hue of the background now there, none of them on black, none of the shape's
    where there is no shape, and always `mask`, for `only_bg` all False.

    Deviation: in the paper's Only-BG-B a black box, in Only-BG-T and behind pasted shapes a tiled piece of background
    stands where the object was, because nobody knows what is behind it. Here it is known and shown whole.

    Args:
        count: number of images, at least two per category.
        seed: anything `numpy.random.default_rng` takes. An integer repeats no image of any `load_shapes`, whose splits
            draw from children of their seed.
        background_bias, difficulty, image_size: as for `shapes`; without a bias there is no gap to measure.

    Raises:
        UserError: too few images, `background_bias` or `difficulty` outside [0, 1], or `image_size` below 8.
    """
    needed = 2 * len(CLASS_NAMES)
    if count < needed:
        raise UserError(
            f"mixed_same takes the background of another image of the same category: count must be {needed} or more, "
            f"two for each of the {len(CLASS_NAMES)} categories, but it is {count}"
        )
    rng = np.random.default_rng(seed)
    labels, foregrounds, backgrounds = draw_scenes(rng, count, background_bias, difficulty)
    # A jump, because `rng` itself goes on with the noise, and a spawn would change a `SeedSequence` that is the seed.
    pairing = np.random.Generator(rng.bit_generator.jumped())
    same = another(pairing, labels, labels)
    other = another(pairing, labels, pairing.integers(len(CLASS_NAMES), size=count))
    layers = {
        "original": (foregrounds, backgrounds),
        "mixed_same": (foregrounds, take(backgrounds, same)),
        "mixed_rand": (foregrounds, take(backgrounds, other)),
        "only_bg": (None, backgrounds),
        "only_fg": (foregrounds, None),
    }
    # A copy of `rng` each, so that all variants have the noise that `shapes` gives.
    return {name: render(labels, *layers[name], copy.deepcopy(rng), image_size, difficulty) for name in BACKGROUNDS}


def another(rng, labels, categories):
    """Returns for every image the row of a random other one of its category in `categories`, (N,); each needs two."""
    chosen = np.empty(len(labels), np.int64)
    for category in np.unique(categories):
        members, rows = np.flatnonzero(labels == category), np.flatnonzero(categories == category)
        own = labels[rows] == category
        place = rng.integers(len(members) - own)
        # Among its own category an image has one place less to choose from: its own is stepped over.
        place += own & (place >= np.searchsorted(members, rows))
        chosen[rows] = members[place]
    return chosen
