"""The counterfactual recipe: a decoder that has to paint the category it is told, and a T with noise.

The paper's decoder may ignore its condition, since T holds the category. Here an image classifier, a player that learns
from images with noise beside the auto-encoder, has to take what is decoded under another category for that category.
"""

import keras
from keras import ops

from cdc_keras.devices import distribution
from cdc_keras.devices.precision import to_float32
from cdc_keras.networks import autoencoder, registry
from cdc_keras.networks.layers import ContextNoise
from cdc_keras.trainers import losses
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.trainers.metrics import hits
from cdc_keras.trainers.step import kept

IMAGE_CLASSIFIER = "vgg13_slim"
# Deviations of the noise on images in [-1, 1]: at most, where the classifier learns; always, where it judges. Without,
# it takes grids that nobody sees for a category. On what is encoded again, so that no message hides in it.
LEARNING_NOISE, JUDGING_NOISE, REENCODING_NOISE = 0.6, 0.3, 0.05


class CounterfactualDisentangler(Disentangler):
    """A `Disentangler` with noise in T and players who look at what is decoded under another category.

    The losses beside those of `Disentangler`, each with its weight in `Settings`:

    * prior: half of the squared length of T without its noise, the mean over the images. With a noise of deviation 1
      that is the Kullback-Leibler divergence of T from N(0, 1). It keeps T from growing out of its noise.
    * counterfactual: the cross-entropy of another category, drawn at random, that the image classifier gives the image
      decoded under it.
    * re-encoding: the squared difference between T of that image and T, over the variance of each channel. It moves the
      encoder only.

    The last two rise as lambda_fool does.

    Args:
        image_size, num_classes, **settings: as for `Disentangler`.
    """

    def __init__(self, image_size, num_classes, **settings):
        super().__init__(image_size, num_classes, **settings)
        if self.settings.counterfactual_weight:
            self.image_classifier = registry.build(IMAGE_CLASSIFIER, image_size, num_classes=num_classes)
        encoder = self.encoder
        both = keras.Model(encoder.input, [autoencoder.mean_encoder(encoder).output, encoder.output])
        noise = next((layer for layer in encoder.layers if isinstance(layer, ContextNoise)), keras.layers.Identity())
        # In functions, which Keras does not look into: as attributes they would be saved a second time.
        self._both = lambda images: both(images, training=True)
        self._with_noise = lambda mean: noise(mean)

    def networks(self):
        more = {"image_classifier": (self.image_classifier,)} if self.settings.counterfactual_weight else {}
        return super().networks() | more

    def update(self, images, labels):
        """Trains all players on one batch, and returns the means of the metrics so far."""
        if self.settings.counterfactual_weight:
            self._update_image_classifier(images, labels)
        return super().update(images, labels)

    def _update_image_classifier(self, images, labels):
        """Moves the image classifier only: cross-entropy of the category on images with noise of any deviation."""
        level = self._draw(keras.random.uniform, images, (1, 1, 1)) * LEARNING_NOISE
        noisy = images + level * self._draw(keras.random.normal, images)

        def loss():
            value = losses.discriminator_loss(self.image_classifier(noisy, training=True), labels)
            return value, value

        variables = self.image_classifier.trainable_variables
        value, gradients = self.gradients(loss, variables, self.player.image_classifier)
        self.player.image_classifier.apply(gradients, variables)
        self._track(images, image_classifier_loss=value)

    def _encoded(self, images):
        mean, context = self._both(images)
        return context, mean

    def _more_losses(self, mean, labels):
        settings, mean = self.settings, to_float32(mean)
        total, metrics = 0.0, {}
        if settings.prior_weight:
            metrics["prior_loss"] = ops.mean(ops.sum(ops.square(mean), axis=(1, 2, 3))) / 2
            total += settings.prior_weight * metrics["prior_loss"]
        if not settings.counterfactual:
            return total, metrics
        others = losses.draw_wrong_labels(labels, self.num_classes, self.draws)
        with kept(self.decoder.non_trainable_variables):
            images = self.decode(self._with_noise(mean), self.condition(others), training=True)
        if settings.counterfactual_weight:
            noisy = images + JUDGING_NOISE * self._draw(keras.random.normal, images)
            logits = self.image_classifier(noisy, training=False)
            metrics["counterfactual_loss"] = losses.discriminator_loss(logits, others)
            metrics["counterfactual_accuracy"] = ops.mean(hits(logits, others))
            total += self.ramp * settings.counterfactual_weight * metrics["counterfactual_loss"]
        if settings.reencoding_weight:
            metrics["reencoding_loss"] = self._reencoding_loss(images, mean)
            total += self.ramp * settings.reencoding_weight * metrics["reencoding_loss"]
        return total, metrics

    def _reencoding_loss(self, images, mean):
        noisy = ops.stop_gradient(images) + REENCODING_NOISE * self._draw(keras.random.normal, images)
        with kept(self.encoder.non_trainable_variables):
            again = to_float32(self._both(noisy)[0])
        return ops.mean(ops.square(again - mean) / (_variance(mean) + 1e-4))

    def _draw(self, draw, images, shape=None):
        """Returns random numbers in the shape of the images, or (B, *shape), drawn for the batch of all replicas."""
        count = ops.shape(images)[0] * distribution.replicas()
        drawn = draw((count, *(images.shape[1:] if shape is None else shape)), dtype=images.dtype, seed=self.draws)
        return distribution.share_of_batch(drawn)


def _variance(context):
    """Returns the variance of each channel of T, (B, h, w, C), over the batch of all replicas; without gradient."""
    moments = [ops.mean(x, axis=(0, 1, 2)) for x in (context, ops.square(context))]
    mean, square = (x / distribution.replicas() for x in distribution.sum_over_replicas(moments))
    return ops.stop_gradient(square - ops.square(mean))
