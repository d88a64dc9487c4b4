"""Means, deviations, paired intervals and p-values over seeds."""

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean over seeds and how sure it is.

    Attributes:
        mean: of the values.
        std: their standard deviation (n - 1 in the denominator); None for one value.
        n: number of values.
    """

    mean: float
    std: float | None
    n: int

    @property
    def interval(self):
        """Half the width of the 95% interval of the mean, by Student's t; None for one value."""
        if self.std is None:
            return None
        return float(stats.t.ppf(0.975, self.n - 1)) * self.std / self.n**0.5

    @property
    def p_value(self):
        """The two-sided p-value of a true mean of zero, by Student's t, in [0, 1]; None for one value."""
        if self.std is None:
            return None
        if not self.std:
            return 0.0 if self.mean else 1.0
        return float(2 * stats.t.sf(abs(self.mean) / (self.std / self.n**0.5), self.n - 1))


def summary(values):
    """Returns the `Summary` of some numbers, one of each seed; None if there are none."""
    values = np.asarray(list(values), float)
    if not len(values):
        return None
    return Summary(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None, len(values))


def paired(ours, theirs):
    """Returns the `Summary` of the differences, ours minus theirs, over the seeds that both have; None if none.

    Args:
        ours, theirs: {seed: value}. What a seed decides for both, the cut of the data and their order, cancels out.
    """
    return summary(ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys()))


def holm(p_values):
    """Returns {key: p-value}, corrected for how many there are by Holm's step-down method (1979).

    If no true mean differs from zero, the chance that any corrected value is below 0.05 is at most 5%.

    Args:
        p_values: {key: p-value in [0, 1]}.
    """
    corrected, largest = {}, 0.0
    for rank, key in enumerate(sorted(p_values, key=p_values.get)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        corrected[key] = largest
    return corrected
