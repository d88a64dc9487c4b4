"""Small TFDS sets for the tests, prepared without the network."""

import numpy as np
import tensorflow_datasets as tfds


def draw(count, shape, first=0):
    """(images, labels): noise of one shape, or of growing width where the shape leaves it open; labels 0, 1, 2, 0..."""
    rng = np.random.default_rng(first)
    shapes = [tuple(24 + i if side is None else side for side in shape) for i in range(count)]
    images = [rng.integers(256, size=s, dtype=np.uint8) for s in shapes]
    return images, [i % 3 for i in range(count)]


def prepare(folder, name, splits, shape=(12, 12, 3), version="3.0.2", text="id", classes="abcdefghij"):
    """Writes a TFDS set `name` into `folder`, three shards per split, without the network.

    Args:
        folder: the data_dir.
        name: one that TFDS knows is read with the features it knows, so `version` and `text` have to be its own.
        splits: name -> (images, labels).
        shape: of every image, None where it varies.
        version: of the set.
        text: what the third feature is called, beside image and label.
        classes: names of the classes.
    """

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(names=list(classes)),
                text: tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._examples(*content) for split, content in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

        def _examples(self, images, labels):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": label, text: str(i)}

    Tiny.name = name
    Tiny(data_dir=folder).download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
