"""How far a mean over images might have come out otherwise: the percentile bootstrap."""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def interval(values, seed):
    """Returns (low, high), the 95% percentile bootstrap interval of the mean (Efron & Tibshirani 1993, Ch. 13).

    It says how the mean varies with the images that are scored, not with those trained on or with the training's seed.

    Args:
        values: (N,) one number or bool for each scored image.
        seed: decides the 1000 resamples.
    """
    rng, values = np.random.default_rng(seed), np.asarray(values, float)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
