"""Image classification sets that TensorFlow Datasets (TFDS) has prepared on this machine; nothing is downloaded."""

import functools
import sys

import numpy as np

from cdc_keras.data.crop import fitted, random_resized_crop
from cdc_keras.data.dataset import Dataset, Split, StreamSplit, numbered
from cdc_keras.data.on_disk import Rows, files_key, on_disk
from cdc_keras.data.split import TEST_FRACTION, TEST_SEED, cut_training, stratified_cut, too_large
from cdc_keras.data.tfds_features import check_features, checked_image_size, texts
from cdc_keras.data.tfds_prepared import prepared
from cdc_keras.errors import UserError
from cdc_keras.progress import Bar

# Examples, still encoded: about 1 GB of ImageNet.
SHUFFLE_BUFFER = 8192
HELD = 8 * 2**30  # bytes of images in memory, by default
READ_BATCH = 256
LABELS, INTACT = "label", "can be decoded"


def load_tfds(
    name,
    *,
    data_dir,
    image_size=None,
    validation_fraction,
    seed,
    train_limit=None,
    crop_area=None,
    memory_limit=HELD,
    features=(),
):
    """Returns the `Dataset` of a prepared TFDS set whose examples have an `image` and a class `label`.

    Where the set has `validation` and a labelled `test`, each is what it says and nothing is cut; where it has one of
    them, that is the test split and validation is cut from training; where it has none, a seeded fifth of every class
    is the test split. (The test labels of imagenet2012 are secret: its `validation` is the test split.)

    Images that are stored at `image_size` pass untouched, bit for bit; of others the shorter side is resized (bilinear,
    without aliasing) and the centre cropped; greyscale becomes three equal channels. Images that cannot be decoded are
    left out, after the cut, and named on stderr by split and row. Rows are read, and therefore cut,
    in the order on disk, which is the same on every machine but not the order of an .npz of the same images.

    Args:
        name: as TFDS calls it: "cifar10", "imagenet_resized/32x32", "imagenet2012", ...
        data_dir: the TFDS folder, which is only read; None is TFDS's own default.
        image_size, validation_fraction, seed, train_limit, crop_area: as for `load.load_dataset`.
        memory_limit: bytes; splits that are to be held but exceed it together are decoded once, into the cache, and
            read from there.
        features: names of further features, single values, that become `factors`, texts.

    Raises:
        UserError: TFDS is not installed, has no such set or has not prepared it, it is no image classification set, or
            has no such features.
    """
    builder = prepared(name, data_dir)
    check_features(builder, features)
    image_size = checked_image_size(builder, image_size)
    parts = _cut(builder, validation_fraction, train_limit, seed)
    like = {"crop_area": crop_area, "memory_limit": memory_limit, "features": features}
    return read_parts(name, builder, parts, image_size, fit=fitted, **like)


def read_parts(name, builder, parts, image_size, *, fit, crop_area, memory_limit, features=()):
    """Returns the `Dataset` of some rows of a prepared set; images that cannot be decoded are named and left out.

    Args:
        name: what to call it.
        builder: what `prepared` returned.
        parts: "train", "validation" and "test" -> (official split, sorted rows of it).
        image_size: height and width, pixels.
        fit: (tensor (H, W, 3) uint8, image_size) -> tensor (image_size, image_size, 3) uint8.
        crop_area, memory_limit, features: as for `load_tfds`.
    """
    sizes = {part: len(rows) for part, (_, rows) in parts.items()}
    held = sum(size for part, size in sizes.items() if part != "train" or crop_area is None)
    large = too_large(held, image_size, memory_limit)
    # On disk are the rows of all parts of an official split together, so that they serve another seed, too.
    stored = {}
    for part, (split, rows) in parts.items():
        if part != "train" or crop_area is None:
            stored[split] = np.union1d(stored.get(split, rows), rows)
    splits, damaged = {}, 0
    for part, (split, rows) in parts.items():
        like = builder, split, rows, image_size, fit
        if part == "train" and crop_area is not None:
            splits[part], intact = _cropped(*like, crop_area, features)
        elif large and len(rows):
            splits[part], intact = _on_disk(*like, features, stored[split])
        else:
            splits[part], intact = _in_memory(*like, features)
        for row in rows[~intact]:
            print(f"image left out: {name}, split {split}, row {row}: it cannot be decoded", file=sys.stderr)
        damaged += int((~intact).sum())
    if damaged:
        print(f"{damaged} of {sum(sizes.values())} images are left out", file=sys.stderr)
    label = builder.info.features["label"]
    class_names = tuple(label.int2str(i) for i in range(label.num_classes))
    return Dataset(name=name, class_names=class_names, image_size=image_size, **splits)


def _cut(builder, validation_fraction, train_limit, seed):
    """Returns {part: (official split, rows of it)} for train, validation and test."""
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(f"{builder.name} has no split called train, only {', '.join(splits)}")
    held_out = [split for split in ("validation", "test") if split in splits and _is_labelled(builder, split)]
    everything = {split: np.arange(splits[split].num_examples) for split in ("train", *held_out)}
    official = {"test": (held_out[-1], everything[held_out[-1]])} if held_out else {}
    if len(held_out) == 2:
        official["validation"] = "validation", everything["validation"]
        validation_fraction = 0.0

    rows = everything["train"]
    labels = np.zeros(len(rows), np.int32)
    if validation_fraction or train_limit is not None or not held_out:
        labels = read_labels(builder, "train")
    if not held_out:
        rows, test_rows = stratified_cut(labels, TEST_FRACTION, TEST_SEED)
        official["test"] = "train", test_rows
    train, validation = cut_training(
        labels[rows], validation_fraction=validation_fraction, train_limit=train_limit, seed=seed
    )
    return {"train": ("train", rows[train]), "validation": ("train", rows[validation]), **official}


def read_labels(builder, split):
    """Returns the (N,) labels of an official split in the order on disk; its images are read, but not decoded."""
    return np.concatenate(list(_labels(builder, split).batch(READ_BATCH).as_numpy_iterator()))


def _labels(builder, split):
    return _as_dataset(builder, split).map(lambda example: example["label"])


def _is_labelled(builder, split):
    first = next(_labels(builder, split).as_numpy_iterator(), -1)
    return first >= 0  # TFDS writes -1 for labels that are not public.


def _as_dataset(builder, split, shards=None):
    """Examples with encoded images in the order on disk, or shard by shard in the order `shards`, an index array."""
    import tensorflow_datasets as tfds

    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            # One shard after the other: the default reads 16 at once and would hide where a row is.
            interleave_cycle_length=1,
            experimental_interleave_sort_fn=None if shards is None else lambda files: [files[i] for i in shards],
            try_autocache=False,
        ),
    )


def _examples(builder, split, rows, image_size, fit, crop_area, shuffle_seed=None, selected=None, augment=False):
    """Does what `StreamSplit.examples` promises for `rows` of a split; a seed shuffles shards, then examples."""
    import tensorflow as tf

    image_feature = builder.info.features["image"]
    is_row = np.zeros(builder.info.splits[split].num_examples, bool)
    is_row[rows] = True
    shards = None
    if shuffle_seed is not None:
        lengths = [file.examples_in_shard for file in builder.info.splits[split].file_instructions]
        shards = np.random.default_rng(shuffle_seed).permutation(len(lengths))
        by_shard = np.split(is_row, np.cumsum(lengths)[:-1])
        is_row = np.concatenate([by_shard[i] for i in shards])

    def decode(place, chosen):
        _, example = chosen
        image = _decoded(image_feature, example)
        if augment and crop_area is not None:
            image = random_resized_crop(image, image_size, crop_area, tf.stack([shuffle_seed, place]))
        else:
            image = fit(image, image_size)
        return image, tf.cast(example["label"], tf.int32)

    # Images stay encoded until the rows are chosen and shuffled.
    chosen = _rows_of(_as_dataset(builder, split, shards), is_row)
    if shuffle_seed is not None:
        chosen = chosen.shuffle(SHUFFLE_BUFFER, seed=shuffle_seed, reshuffle_each_iteration=False)
    return numbered(chosen, selected).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _rows_of(examples, is_row):
    """Returns a `tf.data.Dataset` of (True, example) of the examples where `is_row`, (N,) bool, is true."""
    import tensorflow as tf

    return tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(is_row), examples).filter(lambda keep, example: keep)


def _decoded(image_feature, example):
    """Returns the (H, W, 3) uint8 image of an example."""
    import tensorflow as tf

    image = image_feature.decode_example(example["image"])
    return tf.repeat(image, 3 // image_feature.shape[-1], axis=-1)


def _decodable(builder, split, rows, finish, features=()):
    """Returns a `tf.data.Dataset` of (place in `rows`, image, label, features) of the images that can be decoded.

    Args:
        builder, split, rows: as for `_examples`.
        finish: image (H, W, 3) uint8 -> tensor, what to keep of it.
    """
    import tensorflow as tf

    is_row = np.zeros(builder.info.splits[split].num_examples, bool)
    is_row[rows] = True

    def decode(place, chosen):
        _, example = chosen
        image = finish(_decoded(builder.info.features["image"], example))
        return place, image, tf.cast(example["label"], tf.int32), {name: example[name] for name in features}

    examples = _rows_of(_as_dataset(builder, split), is_row).enumerate()
    return examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()


def _cropped(builder, split, rows, image_size, fit, crop_area, features):
    """Returns (`StreamSplit`, (len(rows),) bool: which can be decoded). It has to know its length beforehand."""
    known = _read(builder, split, rows, lambda image: image[:0, 0, 0], features, np.empty((len(rows), 0), np.uint8))
    intact = known.pop(INTACT)
    examples = functools.partial(_examples, builder, split, rows[intact], image_size, fit, crop_area)
    factors = {name: known[name][intact] for name in features}
    return StreamSplit(examples, int(intact.sum()), factors), intact


def _in_memory(builder, split, rows, image_size, fit, features):
    """Returns (`Split` of the images that can be decoded, (len(rows),) bool: which they are)."""
    images = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    known = _read(builder, split, rows, lambda image: fit(image, image_size), features, images)
    intact = known.pop(INTACT)
    held = Split(images, known[LABELS], {name: known[name] for name in features})
    return (held if intact.all() else held.take(intact)), intact


def _on_disk(builder, split, rows, image_size, fit, features, stored):
    """Returns the same; `stored` are the sorted rows of the split to keep on disk."""
    import tensorflow as tf

    def key():
        about = builder.info.full_name, split, stored.tolist(), fit.__name__, tf.__version__
        return f"{about}\n{files_key(builder.info.splits[split].filepaths)}"

    def fill(images):
        return _read(builder, split, stored, lambda image: fit(image, image_size), (), images)

    shape = (len(stored), image_size, image_size, 3)
    array, known = on_disk(f"{builder.name}, split {split}", key, shape, np.uint8, fill)
    places = np.searchsorted(stored, rows)
    intact = known[INTACT][places]
    places = places[intact]
    factors = _factors(builder, split, rows[intact], features) if features else {}
    return Split(Rows(array, places), known[LABELS][places], factors), intact


def _factors(builder, split, rows, features):
    """Returns {feature: (len(rows),) texts}; images are read, but not decoded."""
    examples = _as_dataset(builder, split).map(lambda example: {name: example[name] for name in features})
    found = {name: [] for name in features}
    for batch in examples.batch(READ_BATCH).as_numpy_iterator():
        for name, values in batch.items():
            found[name].append(texts(builder.info.features[name], values))
    return {name: np.concatenate(values)[rows].astype(str) for name, values in found.items()}


def _read(builder, split, rows, finish, features, images):
    """Writes the images of some rows into an array, and returns what else is known of them.

    Args:
        builder, split, rows, finish, features: as for `_decodable`.
        images: (len(rows), ...) uint8, what `finish` gives of each. What cannot be decoded stays as it was.

    Returns:
        {`LABELS`: (len(rows),) int32, `INTACT`: (len(rows),) bool, and the texts of every feature}.
    """
    labels, intact = np.zeros(len(rows), np.int32), np.zeros(len(rows), bool)
    factors = {name: np.full(len(rows), "", object) for name in features}
    if len(rows):
        batches = _decodable(builder, split, rows, finish, features).batch(READ_BATCH).prefetch(1).as_numpy_iterator()
        bar = Bar(-(-len(rows) // READ_BATCH), "batches", f"reading {builder.name}", items=batches)
        for places, batch, batch_labels, known in bar:
            images[places], labels[places], intact[places] = batch, batch_labels, True
            for name, values in known.items():
                factors[name][places] = texts(builder.info.features[name], values)
    return {LABELS: labels, INTACT: intact} | {name: values.astype(str) for name, values in factors.items()}
