"""How fast do photographs get from files into training batches? python -m benchmarks.photographs

1,000 JPEG files of the commonest size in ImageNet are decoded, resized to 128 or 224 px, cropped and flipped at random,
and packed into batches of floats: by our input path, with the images in memory or on disk, by Keras's
`image_dataset_from_directory`, and by a DataLoader of PyTorch with as many workers as there are cores. They take turns,
each in a process of its own. The first epoch counts from the first look at the folder, and is given apart from the
later ones. Writes docs/results/photographs.json; docs/fill.py makes the table.
"""

import json
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.turns import elsewhere, environment, processes
from cdc_keras.markdown import markdown_table

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "photographs.json"
IMAGES, CLASSES = 1000, 5
WIDTH, HEIGHT = 500, 375
SIZES = (128, 224)
BATCH_SIZE = 64
PADDING = 8  # reflected pixels on each side before the random crop


def write_photographs(folder):
    """Writes class folders of pictures that are as smooth as photographs, and whose files are as large."""
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        place = pathlib.Path(folder, f"class{i % CLASSES}", f"{i}.jpg")
        place.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(256, size=(12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        pixels = smooth + rng.normal(0, 8, smooth.shape)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place, quality=90)


def ours(folder, size, cache, memory_limit):
    """Returns (epoch -> its batches) by our input path; nothing is read before the first epoch."""
    from cdc_keras.data.folder import load_folder
    from cdc_keras.data.pipeline import training_batches

    os.environ["CDC_KERAS_CACHE"] = cache
    held = []

    def epoch(number):
        if not held:
            like = {"image_size": size, "validation_fraction": 0.0, "seed": 0}
            held.append(load_folder(folder, memory_limit=memory_limit, **like).train)
        plan = {"batch_size": BATCH_SIZE, "seed": 0, "crop_padding": PADDING, "flip": True}
        return training_batches(held[0], size, epoch=number, **plan)

    return epoch


def of_keras(folder, size, cache):
    """Returns the same by `image_dataset_from_directory` and layers, with a cache in a file where one is named."""
    import keras
    import tensorflow as tf

    flip = keras.layers.RandomFlip("horizontal", seed=0)
    crop = keras.layers.RandomCrop(size, size, seed=0)
    edges = [[0, 0], [PADDING, PADDING], [PADDING, PADDING], [0, 0]]
    made = []

    def augmented(images, labels):
        padded = tf.pad(images, edges, "REFLECT")
        return crop(flip(padded, training=True), training=True) / 127.5 - 1.0, labels

    def epoch(number):
        del number
        if not made:
            like = {"image_size": (size, size), "crop_to_aspect_ratio": True, "verbose": False}
            images = keras.utils.image_dataset_from_directory(
                folder, **like, shuffle=not cache, seed=0, batch_size=None if cache else BATCH_SIZE
            )
            if cache:  # as bytes, as ours
                images = images.map(lambda x, y: (tf.cast(x, tf.uint8), y)).cache(cache + "/keras").shuffle(IMAGES)
                images = images.batch(BATCH_SIZE).map(lambda x, y: (tf.cast(x, tf.float32), y))
            made.append(images.map(augmented, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))
        return made[0]

    return epoch


class Photographs:
    """The files of class folders for a DataLoader of PyTorch, decoded by PIL, cropped and flipped at random."""

    def __init__(self, folder, size):
        self.files, self.size = sorted(pathlib.Path(folder).glob("*/*")), size
        self.names = sorted({file.parent.name for file in self.files})

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        import torch

        with Image.open(self.files[row]) as image:
            image.draft("RGB", (self.size, self.size))
            image = image.convert("RGB")
            scale = self.size / min(image.size)
            image = image.resize(
                [max(self.size, round(scale * side)) for side in image.size], Image.Resampling.BILINEAR
            )
        left, top = ((side - self.size) // 2 for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + self.size, top + self.size)))
        pixels = np.pad(pixels, [(PADDING, PADDING), (PADDING, PADDING), (0, 0)], "reflect")
        top, left, flipped = (int(torch.randint(most, ())) for most in (2 * PADDING + 1, 2 * PADDING + 1, 2))
        pixels = pixels[top : top + self.size, left : left + self.size]
        pixels = torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1] if flipped else pixels))
        return pixels.permute(2, 0, 1).float() / 127.5 - 1, self.names.index(self.files[row].parent.name)


def of_torch(folder, size):
    """Returns the same by a DataLoader whose workers live on from epoch to epoch."""
    import torch

    loaders = []

    def epoch(number):
        del number
        if not loaders:
            workers = {"num_workers": len(os.sched_getaffinity(0)), "persistent_workers": True}
            loaders.append(
                torch.utils.data.DataLoader(
                    Photographs(folder, size), BATCH_SIZE, shuffle=True, drop_last=True, **workers
                )
            )
        return loaders[0]

    return epoch


class Side:
    """One input path, by epochs.

    Args:
        make: `ours`, `of_keras` or `of_torch`.
        arguments: its own.
    """

    def __init__(self, make, *arguments):
        self.epoch = make(*arguments)

    def __call__(self, number):
        """Returns the images/s of an epoch."""
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in self.epoch(number))
        return count / (time.perf_counter() - start)


def measure(folder, size, rounds):
    """Returns {path: {"first": images/s of the first epoch, "later": [images/s of every round], "mib": peak}}."""
    with tempfile.TemporaryDirectory() as cache:
        made = {
            "ours, in memory": (ours, folder, size, cache, 2**40),
            "ours, on disk": (ours, folder, size, cache, 0),
            "Keras": (of_keras, folder, size, ""),
            "Keras, cached in a file": (of_keras, folder, size, cache),
            "PyTorch": (of_torch, folder, size),
        }
        found = {side: {"later": []} for side in made}
        with processes(f"{size} px", {side: (Side, arguments, {}) for side, arguments in made.items()}) as asks:
            for number in range(rounds + 1):
                for side, ask in asks.items():
                    rate = ask(number=number)
                    if number:
                        found[side]["later"].append(rate)
                    else:
                        found[side]["first"] = rate
            for side, ask in asks.items():
                found[side]["mib"] = ask()
    return found


def table(measured):
    """Returns what was measured as a Markdown table.

    Args:
        measured: {size as text: what `measure` gives}.
    """
    rows = []
    for size, sides in measured.items():
        for side, found in sides.items():
            later = statistics.median(found["later"])
            rows.append((f"{size} px", side, f"{found['first']:,.0f}", f"{later:,.0f}", f"{found['mib']:,.0f}"))
    return markdown_table(
        ("images", "path", "first epoch, images/s", "later epochs, images/s", "peak memory, MiB"), rows
    )


def main(argv):
    del argv
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(folder)
        for size in SIZES:
            measured[str(size)] = measure(folder, size, flags.FLAGS.rounds)
    about = {"rounds": flags.FLAGS.rounds, "environment": elsewhere(environment)}
    RESULTS.write_text(json.dumps(about | {"photographs": measured}, indent=1) + "\n")
    print(table(measured))


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 5, "measured epochs of every path, after the first", lower_bound=1)
    app.run(main)
