"""What every loader of data returns: three splits of uint8 images with integer labels."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from cdc_keras.data.on_disk import Rows

ALIGNMENT = 64  # bytes; TensorFlow ends the process where a tensor begins between two multiples


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, decoded once.

    Attributes:
        images: (N, H, W, 3) uint8, in memory, or the `Rows` of an array on disk.
        labels: (N,) int32 in [0, num_classes).
        factors: name -> (N, ...) array of what is known about an image beside its category: for `shapes` the true
            background and pose, for a folder the columns of its labels.csv, and under `mask` the (N, H, W) bool object.
    """

    images: np.ndarray
    labels: np.ndarray
    factors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self):
        return len(self.labels)

    @property
    def in_memory(self):
        """Whether the images are held in memory."""
        return not isinstance(self.images, Rows)

    @functools.cached_property
    def tensors(self):
        """(images, labels) of a split in memory as tensors of the backend, put on the device once.

        Under TensorFlow on a CPU the arrays move to where the tensors can share their memory, so they are held once.
        """
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if not tf.config.list_physical_devices("GPU"):
                for name in ("images", "labels"):
                    object.__setattr__(self, name, _aligned(getattr(self, name)))
                return tuple(tf.experimental.dlpack.from_dlpack(x.__dlpack__()) for x in (self.images, self.labels))
        return keras.ops.convert_to_tensor(self.images), keras.ops.convert_to_tensor(self.labels)

    def take(self, rows):
        """Returns the split made of `rows`, an index array or a slice; it is in memory."""
        return Split(self.images[rows], self.labels[rows], {name: v[rows] for name, v in self.factors.items()})

    def sample(self, seed, limit=None):
        """Returns the split in random order, and of more than `limit` examples, so many of them."""
        return self.take(np.random.default_rng(seed).permutation(len(self))[:limit])


def _aligned(array):
    """Returns a copy of an array that begins where TensorFlow's operations take it, or itself if it does already."""
    flags = array.flags
    if array.ctypes.data % ALIGNMENT == 0 and flags.c_contiguous and flags.writeable:
        return array
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclasses.dataclass(frozen=True)
class StreamSplit:
    """One split whose images are cropped at random, so decoded again on every pass.

    Attributes:
        examples: (shuffle_seed: int | None, selected: Callable | None = None, augment: bool = False) ->
            `tf.data.Dataset` of one (H, W, 3) uint8 image and its int32 label each. A seed gives another order per
            seed, None the stored order; `selected`, place in that order -> bool tensor, says which are decoded at all;
            `augment` asks for the random crops, each a pure function of the seed and of its place in the order, and not
            without a seed.
        size: number of examples.
        factors: as those of a `Split`, in the stored order.
    """

    examples: Callable
    size: int
    factors: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self):
        return self.size

    def sample(self, seed, limit=None):
        """Returns what `Split.sample` would, were the examples in memory; only those of the sample are decoded."""
        import tensorflow as tf

        rows = np.random.default_rng(seed).permutation(len(self))[:limit]
        in_sample = tf.constant(np.isin(np.arange(len(self)), rows))
        examples = list(self.examples(None, lambda place: in_sample[place]).as_numpy_iterator())
        images, labels = zip(*examples, strict=True) if examples else ((), ())
        return Split(np.array(images), np.array(labels)).take(np.argsort(np.argsort(rows)))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    Attributes:
        name: what `--dataset` said.
        class_names: one per label, in label order.
        image_size: height and width of every image, pixels.
        train, validation, test: the splits. `validation` is cut from training and may be empty (length 0); settings are
            chosen on it, `test` is for reporting only.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: int
    train: Split | StreamSplit
    validation: Split | StreamSplit
    test: Split | StreamSplit


def numbered(examples, selected):
    """Returns a `tf.data.Dataset` of (place in the order, example), of the selected examples.

    Args:
        examples: a `tf.data.Dataset`, not yet decoded.
        selected: place -> bool tensor, or None for all.
    """
    places = examples.enumerate()
    return places if selected is None else places.filter(lambda place, *example: selected(place))
