"""How far a mean over images might have come out otherwise: the percentile bootstrap."""

import numpy as np
from scipy import stats


def interval(values, seed):
    """Returns (low, high), the 95% percentile bootstrap interval of the mean (Efron & Tibshirani 1993, Ch. 13).

    It says how the mean varies with the images that are scored, not with those trained on or with the training's seed.

    Args:
        values: (N,) one number or bool for each scored image, of two or more.
        seed: decides the 1000 resamples.
    """
    sample, rng = (np.asarray(values, float),), np.random.default_rng(seed)
    # In batches, which bound the memory.
    result = stats.bootstrap(sample, np.mean, n_resamples=1000, batch=100, method="percentile", rng=rng)
    return tuple(map(float, result.confidence_interval))


def with_interval(values, seed):
    """Returns {"mean", "low", "high"} of (N,) numbers or bools: their mean and its `interval`."""
    low, high = interval(values, seed)
    return {"mean": float(values.mean()), "low": low, "high": high}
