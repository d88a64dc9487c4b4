"""What the loaders share: seeded cuts that keep the classes' proportions."""

import numpy as np

from cdc_keras.errors import UserError

# Of a data set that brings no held-out images at all, this share becomes the test split.
TEST_FRACTION = 0.2
TEST_SEED = (0, 2)  # the same test images whatever the seed of a run: one may be gated or taught by a run of another


def stratified_cut(labels, size, seed):
    """Returns (rest_rows, cut_rows): two sorted index arrays that together are every row of `labels` once.

    Every class gives its share, rounded so that the sizes add up (largest remainders first), and keeps at least one row
    in `rest_rows`.

    Args:
        labels: (N,) integer category of each row.
        size: how much to cut: an int is a number of rows, a float in [0, 1) a fraction of them.
        seed: anything `numpy.random.default_rng` takes; decides which rows of a class are cut.

    Raises:
        UserError: the fraction is outside [0, 1), or the cut would leave a class without a row.
    """
    labels = np.asarray(labels)
    if isinstance(size, float):
        if not 0 <= size < 1:
            raise UserError(f"a fraction to hold out is at least 0 and below 1, but it is {size}")
        size = round(size * len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    if size and not 0 <= size <= len(labels) - len(classes):
        raise UserError(
            f"cannot hold out {size} of {len(labels)} images in {len(classes)} classes and keep one per class: "
            "add images, lower --validation_fraction or raise --train_limit"
        )
    share = counts * (size / max(len(labels), 1))
    sizes = np.minimum(share.astype(int), counts - 1)
    while (missing := size - sizes.sum()) > 0:
        open_classes = np.flatnonzero(sizes < counts - 1)
        order = np.argsort((sizes - share)[open_classes], kind="stable")
        sizes[open_classes[order[:missing]]] += 1
    rng = np.random.default_rng(seed)
    cut = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, sizes, strict=True)]
    cut_rows = np.sort(np.concatenate([np.empty(0, int), *cut]))
    return np.setdiff1d(np.arange(len(labels)), cut_rows), cut_rows


def cut_training(labels, *, validation_fraction, train_limit, seed):
    """Returns (train_rows, validation_rows) of the images stored for training, sorted.

    The validation rows do not depend on `train_limit`.

    Args:
        labels: (N,) integer category of each stored image.
        validation_fraction: share of them that becomes validation, in [0, 1); 0 gives none.
        train_limit: at most this many of the others are trained on, every class in proportion; None is all.
        seed: decides which.

    Raises:
        UserError: the fraction is outside [0, 1), or a class would be left without a training image.
    """
    labels = np.asarray(labels)
    train_rows, validation_rows = stratified_cut(labels, float(validation_fraction), seed)
    if train_limit is not None and train_limit < len(train_rows):
        kept, _ = stratified_cut(labels[train_rows], len(train_rows) - train_limit, [seed, 1])
        train_rows = train_rows[kept]
    return train_rows, validation_rows


def too_large(images, image_size, memory_limit):
    """Returns whether so many uint8 images of `image_size` pixels a side take more memory than so many bytes."""
    return images * image_size**2 * 3 > memory_limit
