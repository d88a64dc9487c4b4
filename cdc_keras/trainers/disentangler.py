"""The adversarial training of the extractor: two players, two optimizers, one step (Sec. 2, A.1)."""

import random
import types

import keras
from keras import ops

from cdc_keras.choices import FOOL_LOSSES
from cdc_keras.devices import distribution
from cdc_keras.devices.precision import full
from cdc_keras.networks import autoencoder
from cdc_keras.trainers import losses, optimizers
from cdc_keras.trainers.metrics import Mean, hits
from cdc_keras.trainers.step import StepModel, gradient_at

CONTEXTS = ("cdcgm", "cgm", "gm")


class Disentangler(StepModel):
    """The extraction network in training: encoder, decoder G2 and discriminator D (Fig. 2).

    What is kept of it is `encoder`, a functional model from images in [-1, 1] to T. Defaults are the paper's; where it
    is silent, those of Lample et al. 2017, "in the same way" as whom it trains (A.1).

    Args:
        image_size: 32, 128 or 224 pixels.
        num_classes: number of categories.
        context: the context models of Table 1: "cdcgm", all of it; "cgm", no discriminator; "gm", no condition either.
        context_size: T's height and width, pixels; the preset's by default (`networks.autoencoder.encoder`).
        context_channels: of E1's and G1's output, which make T; 64.
        skip: how E1's output enters T: "add" or "none".
        fool_weight: lambda_fool after the ramp; 1e-4.
        fool_ramp_steps: steps over which lambda_fool rises linearly from 0; 500,000.
        fool_loss: "softmax" (Eq. 1), "wrong_class_ce" or "uniform_ce" (`losses.fooling_loss`).
        repulsive_weight: weight of Eq. 2; 1e-3, and 0 is "w/o RL" of Table 2.
        repulsive_delta: margin of Eq. 2; 0.01.
        discriminator_width: channels of D's first convolution.
        discriminators: number of Ds, which share nothing; L_fool is their mean.
        discriminator_steps: updates of D on the T of each batch.
        seed: seeds the random draws of "wrong_class_ce" and of `renew_discriminator`.
    """

    def __init__(
        self,
        image_size,
        num_classes,
        *,
        context="cdcgm",
        context_size=None,
        context_channels=autoencoder.CONTEXT_CHANNELS,
        skip="add",
        fool_weight=1e-4,
        fool_ramp_steps=500_000,
        fool_loss="softmax",
        repulsive_weight=1e-3,
        repulsive_delta=0.01,
        discriminator_width=64,
        discriminators=1,
        discriminator_steps=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if context not in CONTEXTS:
            raise ValueError(f"context must be one of {', '.join(CONTEXTS)}, not {context!r}")
        if fool_loss not in FOOL_LOSSES:
            raise ValueError(f"fool_loss must be one of {', '.join(FOOL_LOSSES)}, not {fool_loss!r}")
        self.num_classes = num_classes
        self.conditional = context != "gm"
        self.adversarial = context == "cdcgm"
        self.repulsive = self.conditional and repulsive_weight > 0
        self.fool_weight, self.fool_ramp_steps, self.fool_loss = fool_weight, fool_ramp_steps, fool_loss
        self.repulsive_weight, self.repulsive_delta = repulsive_weight, repulsive_delta

        self.discriminators, self.discriminator_steps, self.seed = discriminators, discriminator_steps, seed

        self.encoder = autoencoder.encoder(
            image_size, context_size=context_size, context_channels=context_channels, skip=skip
        )
        context_shape = self.encoder.output_shape[1:]
        self.decoder = autoencoder.decoder(
            image_size, context_shape, num_classes=num_classes, context_size=context_size, conditional=self.conditional
        )
        if self.repulsive:
            self._split_decoder()
        self.discriminator_width, self.discriminator = discriminator_width, None
        if self.adversarial:
            self.discriminator = self._new_discriminator()
        self.draws = keras.random.SeedGenerator(seed)
        names = ["reconstruction_loss"]
        names += ["repulsive_loss", "repulsive_active"] if self.repulsive else []
        names += ["discriminator_loss", "discriminator_accuracy"] if self.adversarial else []
        names += ["fooling_loss", "fooling_gradient_norm", "lambda_fool"] if self.adversarial else []
        self.trackers = {name: Mean(name) for name in names}
        self.player = types.SimpleNamespace()
        self.built = True

    def compile(self, learning_rate=2e-4, beta_1=0.5, beta_2=0.999, clip_norm=5.0, steps_per_execution=1):
        """Gives each player its own Adam, the gradients' global norm clipped at `clip_norm` (Lample et al. 2017).

        Where the networks compute in float16, each has its own loss scale, too.
        """
        adam = lambda name: optimizers.Adam(  # noqa: E731
            learning_rate, beta_1, beta_2, epsilon=1e-8, global_clipnorm=clip_norm, name=name
        )
        autoencoder_adam, discriminator_adam = adam("autoencoder_adam"), adam("discriminator_adam")
        # By identity, not by a pattern on the path: variables of nested functional models do not carry its name.
        of_discriminator = {id(v) for v in self.discriminator.trainable_variables} if self.adversarial else set()
        optimizer = keras.optimizers.MultiOptimizer(
            lambda v: discriminator_adam if id(v) in of_discriminator else autoencoder_adam
        )
        super().compile(optimizer=optimizer, steps_per_execution=steps_per_execution, auto_scale_loss=False)
        optimizer.build(self.trainable_variables)
        # Around the two in the `MultiOptimizer`, which takes no scaled ones: JAX, which carries the state of
        # `self.optimizer` alone, is not asked to scale. In a namespace, as Keras would save attributes a second time.
        self.player = types.SimpleNamespace(
            autoencoder=optimizers.loss_scaled(autoencoder_adam, self.encoder, self.decoder)
        )
        self.player.autoencoder.build(self.autoencoder_variables)
        if self.adversarial:
            self.player.discriminator = optimizers.loss_scaled(discriminator_adam, self.discriminator)
            self.player.discriminator.build(self.discriminator.trainable_variables)

    @property
    def autoencoder_variables(self):
        """The trainable variables of encoder and decoder."""
        return self.encoder.trainable_variables + self.decoder.trainable_variables

    def players(self):
        return vars(self.player)

    def _states(self):
        scaled = {k: v for k, v in self.players().items() if isinstance(v, keras.optimizers.LossScaleOptimizer)}
        scales = {f"{name}_loss_scale": optimizer.dynamic_scale for name, optimizer in scaled.items()}
        return super()._states() | scales | {f"{k}_finite_steps": v.step_counter for k, v in scaled.items()}

    @property
    def metrics(self):
        return list(self.trackers.values())

    def call(self, images, labels=None, training=False):
        """Returns T, or with labels the reconstruction G2(T, g(y))."""
        context = self.encoder(images, training=training)
        return context if labels is None else self.decode(context, self.condition(labels), training=training)

    def condition(self, labels):
        """Returns g(y): (B,) integer labels -> (B, classes) one-hot."""
        return ops.one_hot(labels, self.num_classes)

    def decode(self, context, condition, training=False):
        """Returns G2(T, condition); a GM ignores the condition."""
        return self.decoder([context, condition] if self.conditional else context, training=training)

    def discriminate(self, context, training=False):
        """Returns the list of the logits (B, classes) that the members of D give T."""
        logits = self.discriminator(context, training=training)
        return logits if self.discriminators > 1 else [logits]

    def renew_discriminator(self, member, epoch):
        """Gives one of D's members new initial weights, drawn from the seed and the epoch, so that it learns afresh.

        Its Adam goes on: with moments of zero at a late step count, the first steps would be thirty times as long.

        Args:
            member: which one, from 0.
            epoch: at whose beginning, from 0.
        """
        before = random.getstate()
        random.seed(f"{self.seed} {epoch}")  # from Python's generator Keras draws the seeds of initial weights
        try:
            new = self._new_discriminator()
        finally:
            random.setstate(before)
        prefix = autoencoder.prefixes(self.discriminators)[member]
        for layer in self.discriminator.layers:
            if layer.name.startswith(prefix):
                pairs = zip(layer.weights, new.get_layer(layer.name).weights, strict=True)
                for variable, drawn in pairs:
                    variable.assign(drawn.numpy())

    def _new_discriminator(self):
        return autoencoder.discriminator(
            self.encoder.output_shape[1:],
            num_classes=self.num_classes,
            width=self.discriminator_width,
            members=self.discriminators,
        )

    def _split_decoder(self):
        """Makes `decode` in two parts: what does not depend on the condition, and the rest."""
        context, condition = self.decoder.inputs
        features = self.decoder.get_layer(autoencoder.FIRST_DECODED).output
        first = keras.Model(context, features)
        rest = keras.Model([features, condition], self.decoder.outputs[0])
        # In functions, which Keras does not look into: as attributes they would be saved a second time.
        self._decode_first = lambda context: first(context, training=True)
        self._decode_rest = lambda features, condition: rest([features, condition], training=True)

    def update(self, images, labels):
        """Trains both players on one batch, D first, and returns the health readings of `metrics`."""
        if self.adversarial:
            self._update_discriminator(images, labels)
        self._update_autoencoder(images, labels)
        return self.get_metrics_result()

    def _update_discriminator(self, images, labels):
        """Moves D only: cross-entropy of the category on D(T), the auto-encoder in inference mode, D in training."""
        context = ops.stop_gradient(self.encoder(images, training=False))

        def loss():
            logits = self.discriminate(context, training=True)
            values = [losses.discriminator_loss(member, labels) for member in logits]
            # A sum, so that each member learns as it would alone, but for the clipping.
            return sum(values), (sum(values) / len(values), self._accuracy(logits, labels))

        variables = self.discriminator.trainable_variables
        for _ in range(self.discriminator_steps):
            (value, accuracy), gradients = self.gradients(loss, variables, self.player.discriminator)
            self.player.discriminator.apply(gradients, variables)
        self._track(images, discriminator_loss=value, discriminator_accuracy=ops.mean(accuracy))

    def _update_autoencoder(self, images, labels):
        """Moves encoder and decoder only: MSE + lambda_fool L_fool + L_repul, D in inference mode (Eqs. 1 and 2)."""
        condition = self.condition(labels)
        readings = {}

        def loss():
            context = self.encoder(images, training=True)
            if self.repulsive:
                reconstructions, counterfactuals = self._both_decoded(context, condition)
            else:
                reconstructions = self.decode(context, condition, training=True)
            total = readings["reconstruction_loss"] = losses.reconstruction_loss(images, reconstructions)
            if self.repulsive:
                repulsion, active = losses.repulsive_loss(reconstructions, counterfactuals, self.repulsive_delta)
                total += self.repulsive_weight * repulsion
                readings.update(repulsive_loss=repulsion, repulsive_active=active)
            if self.adversarial:
                # D is differentiated once, at T. The inner product has the gradient lambda_fool dL_fool/dT at T, and so
                # the right one at every weight of the encoder, while the reading of its norm costs nothing more.
                fooling, gradient = self._fooling_gradient(context, labels)
                total += self.lambda_fool * ops.sum(ops.stop_gradient(gradient) * full(context))
                readings.update(fooling_loss=fooling, fooling_gradient_norm=_norm_over_replicas(gradient))
                readings["lambda_fool"] = self.lambda_fool
            return total, dict(readings)

        variables = self.autoencoder_variables
        readings, gradients = self.gradients(loss, variables, self.player.autoencoder)
        self.player.autoencoder.apply(gradients, variables)
        self._track(images, **readings)

    def _both_decoded(self, context, condition):
        """Returns G2(T, g(y)) and G2(T, 1 - g(y)) in training mode, G2's moving statistics as the former made them."""
        features = self._decode_first(context)
        reconstructions = self._decode_rest(features, condition)
        statistics = self.decoder.non_trainable_variables
        before = [ops.copy(v.value) for v in statistics]
        counterfactuals = self._decode_rest(features, 1.0 - condition)
        for variable, value in zip(statistics, before, strict=True):
            variable.assign(value)
        return reconstructions, counterfactuals

    @property
    def lambda_fool(self):
        """The weight of L_fool now: `fool_weight` after `fool_ramp_steps` steps, linear from 0 before."""
        if not self.fool_ramp_steps:
            return self.fool_weight
        steps = ops.cast(self.steps, keras.config.floatx())
        return self.fool_weight * ops.minimum(steps / self.fool_ramp_steps, 1.0)

    def _fooling_gradient(self, context, labels):
        """Returns (L_fool, d L_fool / d T), the gradient in float32 and on its way through D scaled."""
        scale = self.player.autoencoder.scale_loss

        def loss(context):
            wrong = None
            if self.fool_loss == "wrong_class_ce":
                wrong = losses.draw_wrong_labels(labels, self.num_classes, self.draws)
            logits = self.discriminate(context)
            value = sum(losses.fooling_loss(member, labels, self.fool_loss, wrong) for member in logits) / len(logits)
            return scale(value), value

        value, gradient = gradient_at(loss, full(context))
        return value, gradient / scale(1.0)

    def assess(self, images, labels):
        """Returns the readings that need no training step, everything in inference mode; labels of -1 are padding."""
        there, labels = labels >= 0, ops.maximum(labels, 0)
        context = self.encoder(images, training=False)
        reconstructions = self.decode(context, self.condition(labels))
        measured = {"reconstruction_loss": ops.mean(ops.square(images - reconstructions), axis=(1, 2, 3))}
        if self.adversarial:
            logits = self.discriminate(context)
            measured["discriminator_loss"] = sum(losses.cross_entropies(labels, x) for x in logits) / len(logits)
            measured["discriminator_accuracy"] = self._accuracy(logits, labels)
        for name, values in measured.items():
            self.trackers[name].update_state(values, sample_weight=there)
        return {name: self.trackers[name].result() for name in measured}

    def _accuracy(self, logits, labels):
        """Returns for each image the share of D's members that are right, (B,)."""
        return sum(hits(member, labels) for member in logits) / len(logits)

    def _track(self, images, **values):
        """Adds batch means to the running means, each batch by its size.

        Under loss scaling the norm is not finite in some steps, which are left out; so is their norm.
        """
        scaled = isinstance(self.player.autoencoder, keras.optimizers.LossScaleOptimizer)
        for name, value in values.items():
            weight = ops.shape(images)[0]
            if scaled and name == "fooling_gradient_norm":
                finite = ops.isfinite(value)
                value, weight = ops.where(finite, value, 0.0), ops.where(finite, weight, 0)
            self.trackers[name].update_state(value, sample_weight=weight)


def _norm_over_replicas(gradient):
    """Returns the norm of the whole batch's gradient, of which each replica has a part, that of its own mean."""
    return ops.sqrt(distribution.total(ops.sum(gradient**2))) / distribution.replicas()
