"""How much of the category a closed-form reader finds in T: a player that is never behind, and that nobody fools."""

import numpy as np

from cdc_keras.data.pipeline import in_batches, scale

IMAGES = 2000
RIDGE = 0.1


def leak_of(extractor, split, num_classes):
    """Returns `leak` of T of at most `IMAGES` images of a split.

    Args:
        extractor: functional model, images in [-1, 1] -> T.
        split: a `Split` that no player learns from.
        num_classes: number of categories.
    """
    sample = split.sample(0, IMAGES)
    context = in_batches(lambda x: extractor(scale(x), training=False), sample.images)
    return leak(context, sample.labels, num_classes)


def leak(context, labels, num_classes):
    """Returns how often kernel ridge regression on one half of T tells the category of the other half, in [0, 1].

    The regression is that of the one-hot category. It has one solution, so it cannot be undertrained. The kernel is
    Gaussian, as wide as two T are apart in the median, on channels of deviation 1.

    Args:
        context: (N, h, w, C) T, N at least 4, in random order.
        labels: (N,) integer categories.
        num_classes: number of categories.
    """
    # Imported here, as it takes seconds, and training a classifier needs none of it.
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances

    half = len(context) // 2
    deviation = context[:half].std(axis=(0, 1, 2), dtype=np.float64)
    flat = (context / np.where(deviation > 1e-6, deviation, 1.0)).reshape(len(context), -1)
    squares = euclidean_distances(flat[half:], flat[:half], squared=True)
    model = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=1 / max(np.median(squares), 1e-12))
    targets = np.eye(num_classes)[labels[:half]]
    mean = targets.mean(axis=0)
    model.fit(flat[:half], targets - mean)
    return float(np.mean((model.predict(flat[half:]) + mean).argmax(axis=1) == labels[half:]))
