"""The synthetic set `shapes`: ten shapes on backgrounds that know, or do not know, the category. No files.

Everything beside the category is a known factor, so what a context holds can be measured instead of guessed, and
`background_bias` makes the situation that the method is for: a background that predicts the category in training only.
"""

import numpy as np

from cdc_keras.data.dataset import Dataset
from cdc_keras.data.scenes import CLASS_NAMES, draw_scenes, render


def load_shapes(
    *,
    seed,
    background_bias=0.0,
    difficulty=0.0,
    image_size=32,
    train_size=10_000,
    validation_size=1_000,
    test_size=2_000,
):
    """Returns the `Dataset` of freshly rendered shapes; the same arguments give the same bytes.

    Training and validation share the bias, the test split has none: its background says nothing about the category.

    Args:
        seed: every split has its own child of this seed.
        background_bias: probability in [0, 1] that a category fixes its background in training and validation.
        difficulty: in [0, 1], of all splits: less contrast, more noise, bars behind the shape.
        image_size: height and width, pixels.
        train_size, validation_size, test_size: images per split; validation may be 0.

    Raises:
        UserError: `background_bias` or `difficulty` outside [0, 1], or `image_size` below 8.
    """
    train_seed, validation_seed, test_seed = np.random.SeedSequence(seed).spawn(3)
    alike = {"difficulty": difficulty, "image_size": image_size}
    biased = {"background_bias": background_bias, **alike}
    return Dataset(
        name="shapes",
        class_names=CLASS_NAMES,
        image_size=image_size,
        train=shapes(train_size, seed=train_seed, **biased),
        validation=shapes(validation_size, seed=validation_seed, **biased),
        test=shapes(test_size, seed=test_seed, **alike),
    )


def shapes(count, *, seed, background_bias=0.0, difficulty=0.0, image_size=32):
    """Returns a `Split` of `count` rendered shapes, categories balanced and shuffled, every factor known.

    The bias changes backgrounds only: two calls that differ in nothing else draw the same shapes in the same places.

    Args:
        count: number of images.
        seed: anything `numpy.random.default_rng` takes.
        background_bias: probability in [0, 1] that an image's background is its category's own texture and hue, instead
            of an independent draw.
        difficulty: in [0, 1]; takes contrast from the shape, adds noise, and lays bars behind the shape.
        image_size: height and width, pixels.

    Returns:
        A `Split` whose `factors` are `texture` (index into `TEXTURE_NAMES`), `hue` and `shape_hue` in [0, 1), the
        centre `x`, `y` (fractions of the side, from the left and the top), `scale` (radius, fraction of the side),
        `rotation` (radians, counter-clockwise) and `mask`, (count, H, W) bool.

    Raises:
        UserError: `background_bias` or `difficulty` outside [0, 1], or `image_size` below 8.
    """
    rng = np.random.default_rng(seed)
    return render(*draw_scenes(rng, count, background_bias, difficulty), rng, image_size, difficulty)


def counterfactual_shapes(count, *, seed, difficulty=0.0, image_size=32):
    """Returns (split, others, images): shapes, and the same scenes with a shape of another category.

    What G2 makes of T under another category can so be compared with the truth.

    Args:
        count, seed, difficulty, image_size: as for `shapes`, of which `split` is one without bias.

    Returns:
        The `Split`; (count,) int32 other categories, each equally likely; (count, H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    labels, *layers = draw_scenes(rng, count, 0.0, difficulty)
    split = render(labels, *layers, rng, image_size, difficulty)
    others = ((labels + rng.integers(1, len(CLASS_NAMES), count)) % len(CLASS_NAMES)).astype(np.int32)
    return split, others, render(others, *layers, rng, image_size, difficulty).images
