"""LEACE: the smallest linear change of features after which no linear classifier reads the category from them.

A closed form, so what an adversary reaches can be held against it. What probes still read after it is not linear.
"""

import dataclasses

import numpy as np

CHUNK = 1024  # rows that are changed at a time
LEAST_SHRINKAGE = 1e-6  # a dead channel is no reason for a singular system
RANK_TOLERANCE = 1e-9  # of a singular value beside the largest


@dataclasses.dataclass(frozen=True)
class Eraser:
    """r(x) = x - A (B'A)^+ B'(x - mean), with A the covariance of features and categories and B = S^-1 A.

    Attributes:
        mean: (D,) of the features it was fitted on.
        read: (D, K - 1) B, from features to what is linearly known of the category.
        undo: (K - 1, D) (B'A)^+ transposed with A, from there to the change of the features.
        shrinkage: in [0, 1], weight of the multiple of the identity in S.
    """

    mean: np.ndarray
    read: np.ndarray
    undo: np.ndarray
    shrinkage: float

    def __call__(self, features):
        """Returns features of any shape (N, ...) without the category, float32."""
        flat = features.reshape(len(features), -1)
        erased = np.empty(flat.shape, np.float32)
        for start in range(0, len(flat), CHUNK):
            rows = slice(start, start + CHUNK)
            erased[rows] = flat[rows] - (flat[rows] - self.mean) @ self.read @ self.undo
        return erased.reshape(features.shape)


def leace(features, labels, num_classes, shrinkage=None):
    """Returns the `Eraser` of the category, fitted on these features (Belrose et al. 2023, Sec. 4).

    Their x - W^+ P W (x - mean), where W = S^(-1/2) and P projects onto the columns of W A, is the map of `Eraser`:
    only a linear system is solved, of as many unknowns as there are features or images, whichever are fewer. Of all
    affine maps that make the class means equal it changes the features least, in any quadratic norm.

    S is the covariance shrunk towards a multiple of the identity by Ledoit & Wolf 2004; the authors' code shrinks it
    too, by another rule. With hardly more images than features the covariance itself fits noise, and on images it was
    not fitted on takes away mostly that. The class means become equal whatever the shrinkage.

    Args:
        features: (N, ...) float, what to fit on.
        labels: (N,) integers in [0, num_classes).
        num_classes: number of categories.
        shrinkage: in [0, 1]; by default that of Ledoit & Wolf.
    """
    flat = features.reshape(len(features), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    centred = flat - mean.astype(flat.dtype)
    # One category is what all others are not, so its indicator is left out: A then has full rank.
    categories = np.eye(num_classes)[labels][:, :-1]
    categories -= categories.mean(axis=0)
    covariance = centred.T.astype(np.float64) @ categories / len(flat)

    wide = flat.shape[1] > len(flat)
    gram = (centred @ centred.T if wide else centred.T @ centred).astype(np.float64) / len(flat)
    if shrinkage is None:
        shrinkage = max(_ledoit_wolf(gram, centred), LEAST_SHRINKAGE)
    ridge = (1 - shrinkage) * gram
    ridge.flat[:: len(ridge) + 1] += shrinkage * (np.trace(gram) / flat.shape[1] or 1)
    if wide:  # (X'X + s)^-1 X' = X'(XX' + s)^-1
        read = centred.T.astype(np.float64) @ np.linalg.solve(ridge, categories / len(flat))
    else:
        read = np.linalg.solve(ridge, covariance)
    undo = np.linalg.pinv(read.T @ covariance, rcond=RANK_TOLERANCE).T @ covariance.T
    return Eraser(mean, read, undo, float(shrinkage))


def _ledoit_wolf(gram, centred):
    """Returns the weight of the identity with the least expected squared error of S (Ledoit & Wolf 2004, Lemma 3.3).

    Args:
        gram: the covariance or, of the same Frobenius norm and trace, X X' / N.
        centred: (N, D) X.
    """
    squared_norm = np.sum(gram**2)
    distance = squared_norm - np.trace(gram) ** 2 / centred.shape[1]
    fourth = np.sum(np.einsum("nd,nd->n", centred, centred, dtype=np.float64) ** 2)
    noise = (fourth / len(centred) - squared_norm) / len(centred)
    return float(np.clip(noise / distance, 0, 1)) if distance > 0 else 0.0
