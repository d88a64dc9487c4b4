"""Is T free of the category? Fresh classifiers, trained on T alone, say how much of it can still be read.

The discriminator can not say: it is the very player that the extractor learned to fool. What a probe that never met the
extractor reads on unseen images is in T; that it finds nothing proves nothing beyond its own strength, so the same
probes also read the category from pixels, and the known nuisance factors, which T is meant to keep.
"""

import itertools

import keras
import numpy as np
from keras import layers

from cdc_keras.data.dataset import StreamSplit
from cdc_keras.data.pipeline import scale

KINDS = {"linear": {"epochs": 20, "learning_rate": 1e-2}, "conv": {"epochs": 6, "learning_rate": 2e-3}}
BATCH_SIZE = 128
WIDTHS = (32, 64)  # channels of the convolutional probe
BINS = 6  # a factor that is a real number becomes so many classes
PIXEL_SIDE = 32  # larger images are averaged down to about this before pixels are probed


def contexts(extractor, images, batch_size=256):
    """Returns T of the images, (N, h, w, C) float32 NumPy.

    Args:
        extractor: functional model, images in [-1, 1] -> T.
        images: (N, H, W, 3) uint8.
        batch_size: images at a time; only memory depends on it.
    """
    starts = range(0, len(images), batch_size)
    batches = [extractor.predict_on_batch(scale(images[start : start + batch_size])) for start in starts]
    return np.concatenate(batches).astype(np.float32)


def probe(train_features, train_labels, test_features, test_labels, *, kind, num_classes, seed, epochs=None):
    """Returns the accuracy, in [0, 1] on the test features, of a classifier trained from scratch on the others.

    Args:
        train_features, test_features: (N, h, w, C) float.
        train_labels, test_labels: (N,) integers in [0, num_classes).
        kind: "linear", a softmax layer on the mean over positions; "conv", two convolutions and a softmax layer.
        num_classes: number of classes.
        seed: decides the initial weights and the order of the examples.
        epochs: passes over the training features; 20 (linear) or 6 (conv) by default.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "linear":
        train_features, test_features = (x.mean(axis=(1, 2), keepdims=True) for x in (train_features, test_features))
    train_features, test_features = _standardized(train_features, test_features)

    model = _probe_network(kind, train_features.shape[1:], num_classes, seed)
    model.compile(
        optimizer=keras.optimizers.Adam(KINDS[kind]["learning_rate"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Under TensorFlow a probe takes longer to compile by XLA than to train; JAX has no other graph.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.fit(
        _batches(train_features, train_labels, np.random.default_rng(seed)),
        steps_per_epoch=_steps(train_labels) * (epochs or KINDS[kind]["epochs"]),
        shuffle=False,
        verbose=0,
    )
    predictions = model.predict(test_features, batch_size=BATCH_SIZE, verbose=0).argmax(axis=-1)
    return float(np.mean(predictions == test_labels))


def audit(extractor, dataset, *, factors=(), limit=3000, seed, train_split="train"):
    """Returns what probes read from T and from pixels, ready for JSON.

    `accuracy` holds, for the category and for each factor, {"chance", "context": {"linear", "conv"}, "pixels": {...}}.
    Chance is the accuracy of always answering what is most frequent in the probes' training images. All accuracies are
    on test images. "linear" reads the mean over positions: of pixels, the mean colour.

    Args:
        extractor: functional model, images in [-1, 1] -> T.
        dataset: the `Dataset` that the extractor was trained on.
        factors: names of `Split.factors` to probe for, one value for each image; integers are classes, real numbers
            are cut into 6 bins that are equally full in training. For `shapes`: ("texture", "hue").
        limit: at most this many images train the probes, and a third of it tests them.
        seed: decides which images are taken, and everything random in the probes.
        train_split: "train" or "validation", whose images train the probes.

    Raises:
        ValueError: for a factor that the data set does not know.
    """
    known = getattr(dataset.test, "factors", {})
    unknown = [name for name in factors if name not in known]
    if unknown:
        raise ValueError(f"{dataset.name} has no factor {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    train = _sample(getattr(dataset, train_split), limit, seed)
    test = _sample(dataset.test, max(limit // 3, 1), seed)

    features = {
        "context": [contexts(extractor, images) for images, _, _ in (train, test)],
        "pixels": [_small_pixels(images) for images, _, _ in (train, test)],
    }
    targets = {"category": (train[1], test[1], len(dataset.class_names))}
    targets |= {name: _classes(train[2][name], test[2][name]) for name in factors}

    accuracy = {}
    for target, (train_labels, test_labels, num_classes) in targets.items():
        most_frequent = np.bincount(train_labels).argmax()
        accuracy[target] = {"chance": float(np.mean(test_labels == most_frequent))}
        for source, (train_x, test_x) in features.items():
            accuracy[target][source] = {
                kind: probe(train_x, train_labels, test_x, test_labels, kind=kind, num_classes=num_classes, seed=seed)
                for kind in KINDS
            }
    sizes = {"train_split": train_split, "train_images": len(train[1]), "test_images": len(test[1])}
    return {"dataset": dataset.name, "seed": seed, **sizes, "accuracy": accuracy}


def _probe_network(kind, shape, num_classes, seed):
    """Returns the probe: standardised features (B, h, w, C) -> logits (B, num_classes)."""
    seeds = itertools.count(seed)
    initializer = lambda: keras.initializers.HeNormal(next(seeds))  # noqa: E731
    x = features = keras.Input(shape)
    if kind == "conv":
        first = 1 if shape[0] <= PIXEL_SIDE // 2 else 2  # pixels are finer than T, and the cost is to be the same
        for width, stride in zip(WIDTHS, (first, 2), strict=True):
            x = layers.Conv2D(width, 3, stride, "same", use_bias=False, kernel_initializer=initializer())(x)
            x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(num_classes, kernel_initializer=initializer())(x)
    return keras.Model(features, x)


def _steps(labels):
    return max(len(labels) // BATCH_SIZE, 1)


def _batches(features, labels, rng):
    """Yields batches for ever, each pass in another order; `fit`'s own shuffling would draw from global state."""
    while True:
        order = rng.permutation(len(labels))
        for rows in np.resize(order, (_steps(labels), BATCH_SIZE)):
            yield features[rows], labels[rows]


def _standardized(train, test):
    """Returns both with each channel's training mean taken off and divided by its training standard deviation."""
    mean, deviation = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    deviation = np.where(deviation > 1e-6, deviation, 1.0)  # a dead channel stays zero
    return tuple(((x - mean) / deviation).astype(np.float32) for x in (train, test))


def _sample(split, limit, seed):
    """Returns (images, labels, factors) of at most `limit` examples, drawn at random."""
    if isinstance(split, StreamSplit):
        examples = itertools.islice(split.examples(seed).as_numpy_iterator(), limit)
        images, labels = zip(*examples, strict=True)
        return np.stack(images), np.stack(labels), {}
    part = split.take(np.random.default_rng(seed).permutation(len(split))[:limit])
    return part.images, part.labels, part.factors


def _small_pixels(images):
    """Returns images as floats in [-1, 1], averaged over squares where they are larger than `PIXEL_SIDE`."""
    side = images.shape[1]
    factor = max(side // PIXEL_SIDE, 1)
    kept = side // factor
    cropped = images[:, : kept * factor, : kept * factor]
    blocks = cropped.reshape(len(images), kept, factor, kept, factor, 3)
    return (blocks.mean(axis=(2, 4), dtype=np.float32) / 127.5 - 1).astype(np.float32)


def _classes(train, test):
    """Returns (train, test, number of classes) of a factor, real numbers cut into `BINS`."""
    if np.issubdtype(train.dtype, np.floating):
        edges = np.quantile(train, np.arange(1, BINS) / BINS)
        return np.searchsorted(edges, train), np.searchsorted(edges, test), BINS
    return train, test, int(max(train.max(), test.max())) + 1
