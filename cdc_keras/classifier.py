"""A classifier in training: any functional network, plain or gated, under cross-entropy."""

import keras
from keras import ops

from cdc_keras.backend import StepModel


class Classifier(StepModel):
    """Trains `network`, which stays a functional model of its own.

    Args:
        network: functional model, images (B, S, S, 3) in [-1, 1] -> logits (B, classes).
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        top_k = min(5, network.output_shape[-1])
        self.trackers = [
            keras.metrics.Mean(name="loss"),
            keras.metrics.SparseCategoricalAccuracy(name="top1"),
            keras.metrics.SparseTopKCategoricalAccuracy(top_k, name="top5"),
        ]
        self.built = True

    def compile(self, optimizer=None, steps_per_execution=1):
        """Takes the optimizer; a model that is only evaluated needs none."""
        super().compile(optimizer=optimizer, steps_per_execution=steps_per_execution)
        if optimizer is not None:
            optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        return list(self.trackers)

    def call(self, images, training=False):
        """Returns the logits."""
        return self.network(images, training=training)

    def update(self, images, labels):
        """Moves the network's trainable variables by one step and returns loss, top-1 and top-5 so far."""

        def loss():
            logits = self.network(images, training=True)
            # Layers of a user's own network may bring penalties of their own.
            total = cross_entropy(labels, logits) + sum(self.network.losses)
            return total, (total, logits)

        variables = self.trainable_variables
        (value, logits), gradients = self.gradients(loss, variables)
        self.optimizer.apply(gradients, variables)
        return self.track(value, labels, logits)

    def assess(self, images, labels):
        """Returns loss, top-1 and top-5 so far, in inference mode."""
        logits = self.network(images, training=False)
        return self.track(cross_entropy(labels, logits), labels, logits)

    def track(self, value, labels, logits):
        """Adds one batch to the running means, by its size, and returns them."""
        loss, *accuracies = self.trackers
        loss.update_state(value, sample_weight=ops.cast(ops.shape(labels)[0], "float32"))
        for accuracy in accuracies:
            accuracy.update_state(labels, logits)
        return self.get_metrics_result()


def cross_entropy(labels, logits):
    """Returns the mean cross-entropy, nats, of (B,) integer labels and (B, classes) logits."""
    return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
