"""Images per second of our training input path beside Keras' augmentation layers and a NumPy loop, as Markdown.

All paths give batches of floats in [-1, 1] of the same shuffled images, reflect-padded by 4, cropped and flipped. They
take turns in one process, so whatever else runs on the machine meets all of them alike; each figure is a median.

A second part gives what each `--augmentation` costs, beside KerasCV's own RandAugment layer, which draws for itself.

A third part sets the random resized crop of ImageNet training beside KerasCV's layer of that name, both on single
images of 375x500 pixels in `tf.data`: images per second, and whether the same seed gives the same images again. Ours
resizes without aliasing, as the evaluated images are resized; the layer does not.

    python -m benchmarks.input_path --out docs/results/input_path.json

From this file `python -m docs.fill` makes the table of augmentations in docs/speed.md.
"""

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import statistics
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from cdc_keras.choices import AUGMENTATIONS
from cdc_keras.data.augmentation import MAGNITUDE, OPERATIONS
from cdc_keras.data.crop import ASPECT_RATIOS, random_resized_crop
from cdc_keras.data.dataset import Split
from cdc_keras.data.pipeline import scale, training_batches
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment

IMAGE_SIZE = 32
PADDING = 4
BATCH_SIZE = 128
CLASSES = 10
BAR = 5.0  # ours is to be this many times as fast as the faster of the two Keras paths
PHOTOGRAPH = (375, 500, 3)  # the commonest size in ImageNet
CROP_SIZE, CROP_AREA = 224, 0.08
REFLECTED = [[PADDING, PADDING], [PADDING, PADDING], [0, 0]]


def ours(split, augmentation="none"):
    """Returns the path that training uses. It is built anew for every epoch, and that time counts."""
    plan = {"batch_size": BATCH_SIZE, "seed": 0, "crop_padding": PADDING, "flip": True, "augmentation": augmentation}
    return lambda epoch: training_batches(split, IMAGE_SIZE, num_classes=CLASSES, epoch=epoch, **plan)


def keras_on_batches(split):
    """Returns RandomFlip and RandomCrop on batches, built once: a flip for each image, a crop for the whole batch."""
    images, labels, flip, crop = _keras_parts(split)

    def batch(rows):
        padded = tf.pad(tf.gather(images, rows), [[0, 0], *REFLECTED], "REFLECT")
        return scale(crop(flip(padded, training=True), training=True)), tf.gather(labels, rows)

    rows = _shuffled_rows(split).batch(BATCH_SIZE, drop_remainder=True)
    dataset = rows.map(batch, num_parallel_calls=2).prefetch(4)
    return lambda epoch: dataset


def keras_on_images(split):
    """Returns RandomFlip and RandomCrop on single images, built once: a flip and a crop for each image."""
    images, labels, flip, crop = _keras_parts(split)

    def example(row):
        padded = tf.pad(images[row], REFLECTED, "REFLECT")
        return scale(crop(flip(padded, training=True), training=True)), labels[row]

    examples = _shuffled_rows(split).map(example, num_parallel_calls=2)
    dataset = examples.batch(BATCH_SIZE, drop_remainder=True).prefetch(4)
    return lambda epoch: dataset


def _keras_parts(split):
    flip = keras.layers.RandomFlip("horizontal", seed=0)
    crop = keras.layers.RandomCrop(IMAGE_SIZE, IMAGE_SIZE, seed=0)
    return tf.constant(split.images), tf.constant(split.labels), flip, crop


def _shuffled_rows(split):
    """Returns row numbers in another order every epoch; shuffling numbers is far cheaper than shuffling images."""
    return tf.data.Dataset.range(len(split)).shuffle(len(split), seed=0)


def numpy_loop(split):
    """Returns a loop over single images in NumPy: a flip and a crop for each image."""

    def batches(epoch):
        rng = np.random.default_rng(epoch)
        order = rng.permutation(len(split))
        for start in range(0, len(split) - BATCH_SIZE + 1, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = np.empty((BATCH_SIZE, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
            for slot, row in enumerate(rows):
                padded = np.pad(split.images[row], REFLECTED, "reflect")
                top, left = rng.integers(2 * PADDING + 1, size=2)
                image = padded[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
                batch[slot] = image[:, ::-1] if rng.random() < 0.5 else image
            yield batch / 127.5 - 1.0, split.labels[rows]

    return batches


PATHS = {
    "ours (`training_batches`)": (ours, "per image"),
    "Keras layers in tf.data, on batches": (keras_on_batches, "per batch"),
    "Keras layers in tf.data, on images": (keras_on_images, "per image"),
    "NumPy loop": (numpy_loop, "per image"),
}
OURS, *KERAS, _ = PATHS


def keras_cv_rand_augment(split):
    """Returns our path without augmentation, then KerasCV's RandAugment on its batches, built once."""
    import keras_cv

    settings = {"augmentations_per_image": OPERATIONS, "magnitude": MAGNITUDE, "seed": 0}
    layer = keras_cv.layers.RandAugment((-1, 1), **settings)
    batches = ours(split)
    augmented = tf.function(lambda images: layer(images, training=True))

    def epoch(number):
        return batches(number).map(lambda images, labels: (augmented(images), labels), num_parallel_calls=2)

    return epoch


def noise(images):
    """Returns a `Split` of so many images of noise."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(images, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return Split(pixels, rng.integers(CLASSES, size=images).astype(np.int32))


def measure_augmentations(images, rounds):
    """Returns {path: [images/s of every round]}: ours with each augmentation, and KerasCV's RandAugment."""
    split = noise(images)
    paths = {augmentation: ours(split, augmentation) for augmentation in AUGMENTATIONS}
    return rates_of(paths | {"KerasCV's RandAugment layer": keras_cv_rand_augment(split)}, rounds)


def augmentation_table(rates):
    """Returns what `measure_augmentations` measured as a Markdown table."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [(x, f"{y:,.0f}", f"{1e6 / y:,.0f}", f"{medians['none'] / y:.1f}x") for x, y in medians.items()]
    return markdown_table(("augmentation", "images/s (median)", "microseconds an image", "beside none"), rows)


def measure(images, rounds):
    """Returns {path: [images/s of every round]} of `PATHS`.

    Args:
        images: examples in an epoch, at least `BATCH_SIZE`.
        rounds: measured epochs of every path.
    """
    split = noise(images)
    return rates_of({name: build(split) for name, (build, _) in PATHS.items()}, rounds)


def rates_of(paths, rounds):
    """Returns {path: [images/s of every round]}, the paths taking turns; one epoch of each warms up first."""
    rates = {name: [] for name in paths}
    for number, (name, epoch) in itertools.product(range(rounds + 1), paths.items()):
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in epoch(number))
        if number > 0:
            rates[name].append(count / (time.perf_counter() - start))
    return rates


def summarize(rates):
    """Returns the medians of `measure`, how many times as fast ours is, and whether that reaches the bar."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    measured = medians[OURS] / max(medians[name] for name in KERAS)
    return {
        "images_per_second": medians,
        "ours_is_times_as_fast": {name: medians[OURS] / medians[name] for name in PATHS},
        "bar": BAR,
        "measured": measured,
        "reached": measured >= BAR,
    }


def table(summary):
    """Returns the summary as a Markdown table with its verdict below."""
    rows = [
        (name, PATHS[name][1], f"{rate:,.0f}", f"{summary['ours_is_times_as_fast'][name]:.1f}x")
        for name, rate in summary["images_per_second"].items()
    ]
    verdict = "reached" if summary["reached"] else "NOT reached"
    sentence = f"Against the faster Keras path: bar {BAR:.1f}x, measured {summary['measured']:.1f}x, {verdict}."
    return markdown_table(("input path", "crop drawn", "images/s (median)", "ours is"), rows) + f"\n\n{sentence}"


def our_crops(image):
    """Returns (place in the stream -> crop), seeded anew."""
    return lambda place: random_resized_crop(image, CROP_SIZE, CROP_AREA, tf.stack([0, place]))


def keras_cv_crops(image):
    """Returns (place in the stream -> crop) of KerasCV's layer, seeded anew; it does not look at the place."""
    import keras_cv

    crop = keras_cv.layers.RandomCropAndResize((CROP_SIZE, CROP_SIZE), (CROP_AREA, 1.0), ASPECT_RATIOS, seed=0)
    return lambda place: crop(image, training=True)


def measure_crops(count, rounds):
    """Returns {path: {images_per_second: median, same_seed_same_images: bool}} of both crops, taking turns.

    Args:
        count: crops in a pass.
        rounds: measured passes of each, after one that warms up; all begin with the same seed.
    """
    image = tf.constant(np.random.default_rng(0).integers(256, size=PHOTOGRAPH, dtype=np.uint8))
    paths = {"ours": our_crops, "keras_cv": keras_cv_crops}
    rates, passes = {name: [] for name in paths}, {name: set() for name in paths}
    for number, (name, build) in itertools.product(range(rounds + 1), paths.items()):
        dataset = tf.data.Dataset.range(count).map(build(image), num_parallel_calls=2)
        start = time.perf_counter()
        crops = [crop.numpy() for crop in dataset]
        if number > 0:
            rates[name].append(count / (time.perf_counter() - start))
        passes[name].add(hashlib.sha256(np.stack(crops).tobytes()).hexdigest())
    return {
        name: {"images_per_second": statistics.median(rates[name]), "same_seed_same_images": len(passes[name]) == 1}
        for name in paths
    }


def sentence(crops):
    """Returns the result of `measure_crops` in words."""
    ours, theirs = crops["ours"], crops["keras_cv"]
    rates = [path["images_per_second"] for path in (ours, theirs)]
    same = ["yes" if path["same_seed_same_images"] else "NO" for path in (ours, theirs)]
    return (
        f"Random resized crops of {PHOTOGRAPH[0]}x{PHOTOGRAPH[1]} images to {CROP_SIZE} px: ours {rates[0]:,.0f} "
        f"images/s, KerasCV {rates[1]:,.0f}, ours is {rates[0] / rates[1]:.1f}x; "
        f"the same images for the same seed: ours {same[0]}, KerasCV {same[1]}."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--images",
        type=int,
        default=20_000,
        help=f"examples in an epoch, at least {BATCH_SIZE}; four times the augmented ones, fifty times the crops",
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured epochs of every path, at least 1")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the medians and every single measurement")
    arguments = parser.parse_args()
    if arguments.images < BATCH_SIZE or arguments.rounds < 1:
        parser.error(f"--images must be at least {BATCH_SIZE} and --rounds at least 1")

    if keras.backend.backend() != "tensorflow":
        sys.exit("error: the input path is tf.data under TensorFlow only; set KERAS_BACKEND=tensorflow")

    rates = measure(arguments.images, arguments.rounds)
    summary = summarize(rates)
    print(
        f"{arguments.images:,} images of {IMAGE_SIZE} px, batches of {BATCH_SIZE}, {arguments.rounds} rounds, ",
        end="",
    )
    print(f"{len(os.sched_getaffinity(0))} cores, TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    print(table(summary))
    augmentations = measure_augmentations(max(arguments.images // 4, BATCH_SIZE), arguments.rounds)
    print(f"\n{augmentation_table(augmentations)}")
    crops = measure_crops(max(arguments.images // 50, 1), arguments.rounds)
    print(f"\n{sentence(crops)}")
    if arguments.out:
        about = {"rounds": arguments.rounds, "environment": environment()}
        results = {**about, **summary, "rates": rates, "augmentations": augmentations, "crops": crops}
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
