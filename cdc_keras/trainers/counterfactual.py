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
# it takes grids that nobody sees for a category.
LEARNING_NOISE, JUDGING_NOISE = 0.6, 0.3
LARGEST_SEEN = 64  # pixels: of larger images both classifiers see the means of blocks, in a quarter of the time or less
CRITIC_NOISE = 0.1  # on all that the critic sees, and on what is encoded again, so that no message hides in it


class CounterfactualDisentangler(Disentangler):
    """A `Disentangler` with noise in T and players who look at what is decoded under another category.

    The losses beside those of `Disentangler`, each with its weight in `Settings`:

    * prior: half of the squared length of T without its noise, the mean over the images. With a noise of deviation 1
      that is the Kullback-Leibler divergence of T from N(0, 1). It keeps T from growing out of its noise.
    * counterfactual: the cross-entropy of another category, drawn at random, that the image classifier gives the image
      decoded under it.
    * cycle: that image is encoded again and decoded under its first category. The squared difference from what it was
      (Zhu et al. 2017) rewards a T that means the same in every category.
    * critic: how surely a second image classifier tells from that image which category it had before, its probability
      of the right one. It takes from the decoder the use of what T knows of the category.

    Both classifiers see at most `LARGEST_SEEN` pixels: of 128 px the means of blocks of 2x2, of 224 px of 4x4.
    Counterfactual and critic rise as lambda_fool does. D sees T with the share `discriminator_noise` of its noise: the
    clearer T is, the sooner D finds the category in it.

    Args:
        image_size, num_classes, **settings: as for `Disentangler`.
    """

    def __init__(self, image_size, num_classes, **settings):
        super().__init__(image_size, num_classes, **settings)
        self.block = -(-image_size // LARGEST_SEEN)
        if self.settings.counterfactual_weight:
            self.image_classifier = registry.build(IMAGE_CLASSIFIER, image_size // self.block, num_classes=num_classes)
        if self.settings.critic_weight:
            self.critic = registry.build(IMAGE_CLASSIFIER, image_size // self.block, num_classes=num_classes)
        encoder = self.encoder
        both = keras.Model(encoder.input, [autoencoder.mean_encoder(encoder).output, encoder.output])
        noise = next((layer for layer in encoder.layers if isinstance(layer, ContextNoise)), keras.layers.Identity())
        # In functions, which Keras does not look into: as attributes they would be saved a second time.
        self._both = lambda images, training=True: both(images, training=training)
        self._with_noise = lambda mean: noise(mean)

    def networks(self):
        weights = {"image_classifier": "counterfactual_weight", "critic": "critic_weight"}
        more = {name: (getattr(self, name),) for name, weight in weights.items() if getattr(self.settings, weight)}
        return super().networks() | more

    def update(self, images, labels):
        """Trains all players on one batch, and returns the means of the metrics so far."""
        if self.settings.counterfactual_weight:
            self._update_image_classifier(images, labels)
        if self.settings.critic_weight:
            self._update_critic(images, labels)
        return super().update(images, labels)

    def _update_image_classifier(self, images, labels):
        """Moves the image classifier only: cross-entropy of the category on images with noise of any deviation."""
        level = self._draw(keras.random.uniform, images, (1, 1, 1)) * LEARNING_NOISE
        seen = self._seen(images)
        noisy = seen + level * self._draw(keras.random.normal, seen)

        def loss():
            value = losses.discriminator_loss(self.image_classifier(noisy, training=True), labels)
            return value, value

        self._track(images, image_classifier_loss=self._moved("image_classifier", loss))

    def _update_critic(self, images, labels):
        """Moves the critic only: cross-entropy of the category an image had before it was decoded under another."""
        others = losses.draw_wrong_labels(labels, self.num_classes, self.draws)
        decoded = ops.stop_gradient(self.decode(self.encoder(images, training=False), self.condition(others)))
        seen = self._seen(decoded)
        noisy = seen + CRITIC_NOISE * self._draw(keras.random.normal, seen)

        def loss():
            logits = self.critic(noisy, training=True)
            return losses.discriminator_loss(logits, labels), ops.mean(hits(logits, labels))

        self._track(images, critic_accuracy=self._moved("critic", loss))

    def _moved(self, player, loss):
        """Moves one player by the gradient of a loss, and returns what the loss gives besides."""
        (network,), optimizer = self.networks()[player], getattr(self.player, player)
        value, gradients = self.gradients(loss, network.trainable_variables, optimizer)
        optimizer.apply(gradients, network.trainable_variables)
        return value

    def _encoded(self, images, training):
        mean, context = self._both(images, training)
        return context, mean + self.settings.discriminator_noise * (context - mean), mean

    def _more_losses(self, images, mean, labels):
        settings, mean = self.settings, to_float32(mean)
        total, metrics = 0.0, {}
        if settings.prior_weight:
            metrics["prior_loss"] = ops.mean(ops.sum(ops.square(mean), axis=(1, 2, 3))) / 2
            total += settings.prior_weight * metrics["prior_loss"]
        if not settings.counterfactual:
            return total, metrics
        others = losses.draw_wrong_labels(labels, self.num_classes, self.draws)
        with kept(self.decoder.non_trainable_variables):
            painted = self.decode(self._with_noise(mean), self.condition(others), training=True)
        seen = self._seen(painted)
        if settings.counterfactual_weight:
            noisy = seen + JUDGING_NOISE * self._draw(keras.random.normal, seen)
            logits = self.image_classifier(noisy, training=False)
            metrics["counterfactual_loss"] = losses.discriminator_loss(logits, others)
            metrics["counterfactual_accuracy"] = ops.mean(hits(logits, others))
            total += self.ramp * settings.counterfactual_weight * metrics["counterfactual_loss"]
        if settings.critic_weight:
            noisy = seen + CRITIC_NOISE * self._draw(keras.random.normal, seen)
            metrics["critic_loss"] = losses.fooling_loss(self.critic(noisy, training=False), labels)
            total += self.ramp * settings.critic_weight * metrics["critic_loss"]
        if settings.cycle_weight:
            metrics["cycle_loss"] = self._cycle_loss(images, painted, labels)
            total += settings.cycle_weight * metrics["cycle_loss"]
        return total, metrics

    def _cycle_loss(self, images, painted, labels):
        noisy = painted + CRITIC_NOISE * self._draw(keras.random.normal, images)
        with kept(self.encoder.non_trainable_variables + self.decoder.non_trainable_variables):
            again = self.decode(self._both(noisy, not self.decoder_alone)[1], self.condition(labels), training=True)
        return losses.reconstruction_loss(images, again)

    def _seen(self, images):
        """Returns images as both classifiers see them, (B, S / block, S / block, 3)."""
        return images if self.block == 1 else ops.average_pool(images, self.block)

    def _draw(self, draw, images, shape=None):
        """Returns random numbers in the shape of the images, or (B, *shape), drawn for the batch of all replicas."""
        count = ops.shape(images)[0] * distribution.replicas()
        drawn = draw((count, *(images.shape[1:] if shape is None else shape)), dtype=images.dtype, seed=self.draws)
        return distribution.share_of_batch(drawn)
