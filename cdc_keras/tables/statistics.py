"""Means, deviations and paired intervals over seeds."""

import dataclasses

import numpy as np

# Student's t, 97.5%, by degrees of freedom from 1 (e.g. Fisher & Yates 1963, Table III); above 30 it is within 2% of 2.
T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


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
        return T[min(self.n - 1, len(T)) - 1] * self.std / self.n**0.5


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
