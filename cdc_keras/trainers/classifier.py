"""A classifier in training: any functional network, plain or gated, under cross-entropy."""

import keras
from keras import ops

from cdc_keras.trainers import optimizers
from cdc_keras.trainers.losses import cross_entropies
from cdc_keras.trainers.metrics import Confusion, Mean, hits
from cdc_keras.trainers.step import StepModel


class Classifier(StepModel):
    """Trains `network`, which stays a functional model of its own.

    Args:
        network: functional model, images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).
        paint: what alters every batch that is trained on, as `painting.painter` returns it; nothing by default.
        seed: of its random draws.
        groups: how many groups of images are told apart in an evaluation. The labels of group k have k * num_classes
            added.

    Attributes:
        confusion: `metrics.Confusion` of the images that were last evaluated.
    """

    def __init__(self, network, paint=None, seed=0, groups=1, **kwargs):
        super().__init__(**kwargs)
        self.network, self.paint = network, paint
        if paint is not None:
            self.draws = keras.random.SeedGenerator(seed)
        self.confusion = Confusion(network.outputs[0].shape[-1], groups)
        self.trackers = [Mean("loss"), Mean("top1"), Mean("top5")]
        self.built = True

    def compile(self, optimizer=None, steps_per_execution=1):
        """Takes the optimizer, loss scaling added where it is needed; a model that is only evaluated needs none."""
        if optimizer is not None:
            optimizer = optimizers.loss_scaled(optimizer, self.network)
            optimizer.build(self.trainable_variables)
        super().compile(optimizer=optimizer, steps_per_execution=steps_per_execution, auto_scale_loss=False)

    @property
    def metrics(self):
        return [*self.trackers, self.confusion]

    def call(self, images, training=False):
        """Returns the logits."""
        return self.network(images, training=training)

    def update(self, images, labels):
        """Moves the network's trainable variables by one step and returns loss, top-1 and top-5 so far.

        Args:
            images: (B, S, S, 3) in [-1, 1].
            labels: (B,) integer categories, or (B, num_classes) shares that add up to 1, where images are mixed.
        """
        images, labels = self.painted(images, labels)

        def loss():
            logits = self.network(images, training=True)
            # Layers of a user's own network may bring penalties of their own.
            total = ops.mean(cross_entropies(labels, logits)) + sum(self.network.losses)
            return total, (total, logits)

        variables = self.trainable_variables
        (value, logits), gradients = self.gradients(loss, variables, self.optimizer)
        self.optimizer.apply(gradients, variables)
        return self.track(value, labels, logits)

    def painted(self, images, labels):
        """Returns the batch to train on."""
        return (images, labels) if self.paint is None else self.paint(images, labels, self.draws)

    def assess(self, images, labels):
        """Returns loss, top-1 and top-5 so far, in inference mode; labels of -1 are padding."""
        counted, labels = labels >= 0, ops.maximum(labels, 0)
        logits = self.network(images, training=False)
        self.confusion.update_state(labels, logits, sample_weight=counted)
        labels = labels % logits.shape[-1]
        return self.track(cross_entropies(labels, logits), labels, logits, counted)

    def track(self, loss, labels, logits, counted=None):
        """Adds one batch to the running means and returns them.

        Args:
            loss: (B,), or the mean over the batch.
            labels: (B,) integer categories, or (B, num_classes) shares, of which the largest is the one to hit.
            logits: (B, num_classes).
            counted: (B,), whether an example counts; all do by default.
        """
        mean_loss, top1, top5 = self.trackers
        mean_loss.update_state(loss, sample_weight=ops.shape(labels)[0] if counted is None else counted)
        if len(labels.shape) == 2:
            labels = ops.argmax(labels, axis=-1)
        top1.update_state(hits(logits, labels), sample_weight=counted)
        top5.update_state(hits(logits, labels, k=5), sample_weight=counted)
        return self.get_metrics_result()
