"""Running means that are those of the whole batch on any number of replicas."""

import keras
from keras import ops

from cdc_keras.devices import distribution


class Mean(keras.metrics.Metric):
    """The mean of all values so far.

    Keras' own metrics add to their variables by assigning the sum of old and new, which under tf.distribute, where what
    is assigned is summed over the replicas, multiplies the old by their number at every step.
    """

    def __init__(self, name, **kwargs):
        super().__init__(name=name, **kwargs)
        self.total, self.count = (
            self.add_variable((), "zeros", aggregation="only_first_replica", name=x) for x in ("total", "count")
        )

    def update_state(self, values, sample_weight=None):
        """Adds values, each times its weight.

        Args:
            values: (B,), or a scalar.
            sample_weight: of the same shape; 1 by default.
        """
        values = ops.cast(values, self.dtype)
        weights = ops.ones_like(values) if sample_weight is None else ops.cast(sample_weight, self.dtype)
        total, count = distribution.total([ops.sum(values * weights), ops.sum(weights)])
        self.total.assign_add(total)
        self.count.assign_add(count)

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


def hits(logits, labels, k=1):
    """Returns 1 where the label is among the `k` highest logits, of equal ones the first, else 0; (B,) floats.

    Args:
        logits: (B, classes).
        labels: (B,) integer categories.
    """
    labels = labels[:, None]
    correct = ops.take_along_axis(logits, labels, axis=-1)
    before = (logits == correct) & (ops.arange(logits.shape[-1], dtype=labels.dtype) < labels)
    ahead = ops.cast((logits > correct) | before, "int32")
    return ops.cast(ops.sum(ahead, axis=-1) < k, logits.dtype)
