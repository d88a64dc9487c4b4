"""The probes: classifiers that never met the extractor, trained from scratch on features and scored on others."""

import itertools

import keras
import numpy as np
from keras import layers
from sklearn.neighbors import KNeighborsClassifier

# The same for all features and targets: a probe tuned to one would favour it.
PROBES = {
    "linear": {"reads": "mean over positions", "epochs": 20, "learning_rate": 1e-2},
    "knn": {"reads": "all positions", "neighbours": 10, "similarity": "cosine"},
    "mlp": {"reads": "all positions", "hidden": 256, "dropout": 0.5, "epochs": 20, "learning_rate": 1e-3},
    "conv": {"reads": "all positions", "widths": (32, 64), "epochs": 12, "learning_rate": 2e-3},
}
BATCH_SIZE = 128
PIXEL_SIDE = 32  # larger images are averaged down to about this before pixels are probed


def probe(train_features, train_labels, features, *, kind, num_classes, seed):
    """Returns what a fresh probe takes each of the features for: (N,) integers in [0, num_classes).

    Every channel is brought to mean 0 and deviation 1 of the training features first.

    Args:
        train_features: (M, h, w, C) float, what the probe learns from.
        train_labels: (M,) integers in [0, num_classes).
        features: (N, h, w, C) float, what it then reads.
        kind: "linear", a softmax layer on the mean over positions; "knn", the majority of the 10 training features of
            the largest cosine; "mlp", one hidden layer on all positions; "conv", two convolutions and a softmax layer.
        num_classes: number of classes.
        seed: decides the initial weights and the order of the examples.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in PROBES:
        raise ValueError(f"kind must be one of {', '.join(PROBES)}, not {kind!r}")
    if kind == "linear":
        train_features, features = (x.mean(axis=(1, 2), keepdims=True) for x in (train_features, features))
    train_features, features = standardized(train_features, features)
    if kind == "knn":
        return nearest_neighbours(train_features, train_labels, features)

    model = _network(kind, train_features.shape[1:], num_classes, seed)
    model.compile(
        optimizer=keras.optimizers.Adam(PROBES[kind]["learning_rate"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # Under TensorFlow a probe takes longer to compile by XLA than to train; JAX has no other graph.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.fit(
        _batches(train_features, train_labels, np.random.default_rng(seed)),
        steps_per_epoch=_steps(train_labels) * PROBES[kind]["epochs"],
        shuffle=False,
        verbose=0,
    )
    return model.predict(features, batch_size=BATCH_SIZE, verbose=0).argmax(axis=-1)


def nearest_neighbours(train_features, train_labels, features, neighbours=PROBES["knn"]["neighbours"]):
    """Returns the majority class among each feature's nearest training features by cosine: (N,) integers.

    Of classes with equally many neighbours the one whose neighbours are nearer together wins.

    Args:
        train_features, features: (M, ...) and (N, ...) float.
        train_labels: (M,) integers.
        neighbours: how many vote; all of them if there are fewer.
    """
    neighbours = min(neighbours, len(train_labels))

    def votes(distances):  # from 0 to 2: every neighbour counts 1 and a little; all the littles together stay below 1
        return 1 + (2 - distances) / (2.1 * neighbours)

    classifier = KNeighborsClassifier(neighbours, metric="cosine", weights=votes)
    train_features, features = (x.reshape(len(x), -1) for x in (train_features, features))
    return classifier.fit(train_features, train_labels).predict(features)


def small_pixels(images):
    """Returns images as floats in [-1, 1], averaged over squares where they are larger than `PIXEL_SIDE`.

    Args:
        images: (N, H, W, 3) uint8.
    """
    side = images.shape[1]
    factor = max(side // PIXEL_SIDE, 1)
    kept = side // factor
    cropped = images[:, : kept * factor, : kept * factor]
    blocks = cropped.reshape(len(images), kept, factor, kept, factor, 3)
    return (blocks.mean(axis=(2, 4), dtype=np.float32) / 127.5 - 1).astype(np.float32)


def _network(kind, shape, num_classes, seed):
    """Returns the probe: standardised features (B, h, w, C) -> logits (B, num_classes)."""
    settings, seeds = PROBES[kind], itertools.count(seed)

    def initializer():
        return keras.initializers.HeNormal(next(seeds))

    x = features = keras.Input(shape)
    if kind == "mlp":
        x = layers.Flatten()(x)
        # Without batch norm thousands of inputs that move together can drive every hidden unit below zero for good.
        x = layers.Dense(settings["hidden"], use_bias=False, kernel_initializer=initializer())(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Dropout(settings["dropout"], seed=next(seeds))(x)
    elif kind == "conv":
        first = 1 if shape[0] <= PIXEL_SIDE // 2 else 2  # pixels are finer than T, and the cost is to be the same
        for width, stride in zip(settings["widths"], (first, 2), strict=True):
            x = layers.Conv2D(width, 3, stride, "same", use_bias=False, kernel_initializer=initializer())(x)
            x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    if kind != "mlp":
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


def standardized(train, *others):
    """Returns all with each channel's training mean taken off and divided by its training standard deviation."""
    mean, deviation = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
    deviation = np.where(deviation > 1e-6, deviation, 1.0)  # a dead channel stays zero
    return tuple(((x - mean) / deviation).astype(np.float32) for x in (train, *others))
