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
        total, count = distribution.sum_over_replicas([ops.sum(values * weights), ops.sum(weights)])
        self.total.assign_add(total)
        self.count.assign_add(count)

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


class Confusion(keras.metrics.Metric):
    """Counts how often images of one category were taken for another.

    Attributes:
        counts: variable (groups * num_classes, num_classes), row the true category within its group, column the
            predicted one.
    """

    def __init__(self, num_classes, groups=1, name="confusion", **kwargs):
        super().__init__(name=name, **kwargs)
        self.counts = self.add_variable(
            (groups * num_classes, num_classes), "zeros", aggregation="only_first_replica", name="counts"
        )

    def update_state(self, labels, logits, sample_weight):
        """Adds a batch.

        Args:
            labels: (B,) integer rows: num_classes for each group before, and the category.
            logits: (B, num_classes).
            sample_weight: (B,), 0 for an image that does not count.
        """
        rows, num_classes = self.counts.shape
        true = ops.one_hot(labels, rows, dtype=self.dtype) * ops.cast(sample_weight, self.dtype)[:, None]
        predicted = ops.one_hot(ops.argmax(logits, axis=-1), num_classes, dtype=self.dtype)
        self.counts.assign_add(distribution.sum_over_replicas(ops.matmul(ops.transpose(true), predicted)))

    def result(self):
        """Returns no metric: `counts` are no number to be logged."""
        return {}

    def numpy(self):
        """Returns the counts as whole numbers."""
        return ops.convert_to_numpy(self.counts).astype("int64")


def hits(logits, labels, k=1):
    """Returns 1 where the label is among the `k` highest logits, of equal ones the first, else 0; (B,) floats.

    A label whose logit is NaN is behind all others.

    Args:
        logits: (B, num_classes).
        labels: (B,) integer categories.
    """
    labels = labels[:, None]
    correct = ops.take_along_axis(logits, labels, axis=-1)
    after = (logits == correct) & (ops.arange(logits.shape[-1], dtype=labels.dtype) >= labels)
    behind = ops.cast((logits < correct) | after, "int32")  # the label itself, too, unless it is NaN
    return ops.cast(logits.shape[-1] - ops.sum(behind, axis=-1) < k, logits.dtype)
