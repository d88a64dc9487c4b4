"""The adversarial training of the extractor: two players, two optimizers, one step (Sec. 2, A.1)."""

import random
import types

import keras
from keras import ops

from cdc_keras.devices import distribution
from cdc_keras.devices.precision import to_float32
from cdc_keras.networks import autoencoder
from cdc_keras.trainers import losses, optimizers
from cdc_keras.trainers.metrics import Mean, hits
from cdc_keras.trainers.settings import Settings
from cdc_keras.trainers.step import StepModel, gradient_at, kept


class Disentangler(StepModel):
    """The trainer of an extractor: its network E with a decoder G2 and a discriminator D (Fig. 2).

    The extractor is kept as `encoder`, a functional model from images in [-1, 1] to T. After `freeze_encoder` T stays
    as it is: the decoder goes on learning from it, and D goes on reading it.

    Args:
        image_size: 32, 128 or 224 pixels.
        num_classes: number of categories.
        **settings: the fields of `Settings`, which is kept as `settings`.

    Raises:
        ValueError: there is no preset for this size, or a setting is none of those allowed.
    """

    def __init__(self, image_size, num_classes, **settings):
        super().__init__()
        self.num_classes, self.decoder_alone = num_classes, False
        settings = self.settings = Settings(**settings)
        self.conditional, self.adversarial = settings.conditional, settings.adversarial
        self.encoder = autoencoder.encoder(
            image_size,
            context_size=settings.context_size,
            context_channels=settings.context_channels,
            skip=settings.skip,
            noise=settings.context_noise,
        )
        context_shape = self.encoder.output_shape[1:]
        self.decoder = autoencoder.decoder(
            image_size,
            context_shape,
            num_classes=num_classes,
            context_size=settings.context_size,
            conditional=self.conditional,
            conditioning=settings.conditioning,
            blocks=settings.decoder_blocks,
        )
        if settings.repulsive:
            self._split_decoder()
        self.discriminator = self._new_discriminator() if self.adversarial else None
        self.draws = keras.random.SeedGenerator(settings.seed)
        self.trackers = {name: Mean(name) for name in settings.metrics}
        self.player = types.SimpleNamespace()
        self.built = True

    def networks(self):
        """Returns {player: the networks that it moves}."""
        adversary = {"discriminator": (self.discriminator,)} if self.adversarial else {}
        return {"autoencoder": (self.encoder, self.decoder), **adversary}

    def compile(
        self, learning_rate=2e-4, beta_1=0.5, beta_2=0.999, clip_norm=5.0, steps_per_execution=1, annealing=None
    ):
        """Gives each player its own Adam, the gradients' global norm clipped at `clip_norm` (Lample et al. 2017).

        Where the networks compute in float16, each has its own loss scale, too. `annealing` takes the place of
        `learning_rate` for the auto-encoder, whose adversaries catch up with it while it slows down.
        """
        networks = self.networks()
        rates = {"autoencoder": learning_rate if annealing is None else annealing}
        adams = {
            name: optimizers.Adam(
                rates.get(name, learning_rate),
                beta_1,
                beta_2,
                epsilon=1e-8,
                global_clipnorm=clip_norm,
                name=f"{name}_adam",
            )
            for name in networks
        }
        # By identity, not by a pattern on the path: variables of nested functional models do not carry its name.
        owner = {id(v): name for name in networks for v in self._variables_of(name)}
        optimizer = keras.optimizers.MultiOptimizer(lambda v: adams[owner[id(v)]])
        super().compile(optimizer=optimizer, steps_per_execution=steps_per_execution, auto_scale_loss=False)
        optimizer.build(self.trainable_variables)
        # Around those in the `MultiOptimizer`, which takes no scaled ones: JAX, which carries the state of
        # `self.optimizer` alone, is not asked to scale. In a namespace, as Keras would save attributes a second time.
        scaled = {name: optimizers.loss_scaled(adam, *networks[name]) for name, adam in adams.items()}
        for name, player in scaled.items():
            player.build(self._variables_of(name))
        self.player = types.SimpleNamespace(**scaled)

    def _variables_of(self, player):
        return [v for network in self.networks()[player] for v in network.trainable_variables]

    @property
    def autoencoder_variables(self):
        """The trainable variables of encoder and decoder."""
        return self._variables_of("autoencoder")

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
        """Returns g(y): (B,) integer labels -> (B, num_classes) one-hot."""
        return ops.one_hot(labels, self.num_classes)

    def decode(self, context, condition, training=False):
        """Returns G2(T, condition); a GM ignores the condition."""
        return self.decoder([context, condition] if self.conditional else context, training=training)

    def discriminate(self, context, training=False):
        """Returns the list of the logits (B, num_classes) that the members of D give T."""
        logits = self.discriminator(context, training=training)
        return logits if self.settings.discriminators > 1 else [logits]

    def freeze_encoder(self):
        """Leaves the decoder to learn alone from now on."""
        self.train_function = self.train_function if self.decoder_alone else None  # Keras builds another step
        self.decoder_alone = True

    def renew_discriminator(self, member, epoch):
        """Gives one of D's members new initial weights, drawn from the seed and the epoch, so that it learns afresh.

        Its Adam goes on: with moments of zero at a late step count, the first steps would be thirty times as long.

        Args:
            member: which one, from 0.
            epoch: at whose beginning, from 0.
        """
        before = random.getstate()
        random.seed(f"{self.settings.seed} {epoch}")  # from Python's generator Keras draws the seeds of initial weights
        try:
            new = self._new_discriminator()
        finally:
            random.setstate(before)
        prefix = autoencoder.prefixes(self.settings.discriminators)[member]
        for layer in self.discriminator.layers:
            if layer.name.startswith(prefix):
                pairs = zip(layer.weights, new.get_layer(layer.name).weights, strict=True)
                for variable, drawn in pairs:
                    variable.assign(drawn.numpy())

    def _new_discriminator(self):
        like = {name: getattr(self.settings, f"discriminator_{name}") for name in ("width", "dropout")}
        shape, members = self.encoder.output_shape[1:], self.settings.discriminators
        return autoencoder.discriminator(shape, num_classes=self.num_classes, members=members, **like)

    def _split_decoder(self):
        first, rest = autoencoder.split(self.decoder)
        # In functions, which Keras does not look into: as attributes it would save them a second time.
        self._decode_first = lambda context: first(context, training=True)
        self._decode_rest = lambda features, condition: rest([features, condition], training=True)

    def update(self, images, labels):
        """Trains both players on one batch, D first, and returns the means of the metrics so far."""
        if self.adversarial:
            self._update_discriminator(images, labels)
        self._update_autoencoder(images, labels)
        return self.get_metrics_result()

    def _update_discriminator(self, images, labels):
        """Moves D only: cross-entropy of the category on D(T), the auto-encoder in inference mode, D in training."""
        seen = ops.stop_gradient(self._encoded(images, training=False)[1])

        def loss():
            logits = self.discriminate(seen, training=True)
            values = [losses.discriminator_loss(member, labels) for member in logits]
            # A sum, so that each member learns as it would alone, but for the clipping.
            return sum(values), (sum(values) / len(values), self._accuracy(logits, labels))

        variables = self.discriminator.trainable_variables
        for _ in range(self.settings.discriminator_steps):
            (value, accuracy), gradients = self.gradients(loss, variables, self.player.discriminator)
            self.player.discriminator.apply(gradients, variables)
        self._track(images, discriminator_loss=value, discriminator_accuracy=ops.mean(accuracy))

    def _update_autoencoder(self, images, labels):
        """Moves encoder and decoder only: MSE + lambda_fool L_fool + L_repul, D in inference mode (Eqs. 1 and 2)."""
        condition, settings, metrics = self.condition(labels), self.settings, {}

        def loss():
            context, seen, mean = self._encoded(images, training=not self.decoder_alone)
            if settings.repulsive:
                reconstructions, counterfactuals = self._both_decoded(context, condition)
            else:
                reconstructions = self.decode(context, condition, training=True)
            total = metrics["reconstruction_loss"] = losses.reconstruction_loss(images, reconstructions)
            if settings.repulsive:
                repulsion, active = losses.repulsive_loss(reconstructions, counterfactuals, settings.repulsive_delta)
                total += settings.repulsive_weight * repulsion
                metrics.update(repulsive_loss=repulsion, repulsive_active=active)
            if self.adversarial:
                # D is differentiated once, at T. The inner product has the gradient lambda_fool dL_fool/dT at T, and so
                # the right one at every weight of the encoder, while its norm costs nothing more.
                fooling, gradient = self._fooling_gradient(seen, labels)
                total += self.lambda_fool * ops.sum(ops.stop_gradient(gradient) * to_float32(seen))
                metrics.update(fooling_loss=fooling, fooling_gradient_norm=distribution.norm_over_replicas(gradient))
                metrics["lambda_fool"] = self.lambda_fool
            more, values = self._more_losses(images, mean, labels)
            return total + more, metrics | values

        variables = self.decoder.trainable_variables if self.decoder_alone else self.autoencoder_variables
        metrics, gradients = self.gradients(loss, variables, self.player.autoencoder)
        self.player.autoencoder.apply(gradients, variables)
        self._track(images, **metrics)

    def _encoded(self, images, training):
        """Returns (T, T as D sees it, T without noise), which are the same here."""
        return (self.encoder(images, training=training),) * 3

    def _more_losses(self, images, mean, labels):
        """Returns (the sum of further losses, their metrics), given T of images without noise; none here."""
        return 0.0, {}

    def _both_decoded(self, context, condition):
        """Returns G2(T, g(y)) and G2(T, 1 - g(y)) in training mode, G2's moving statistics as the former made them."""
        features = self._decode_first(context)
        reconstructions = self._decode_rest(features, condition)
        with kept(self.decoder.non_trainable_variables):
            counterfactuals = self._decode_rest(features, 1.0 - condition)
        return reconstructions, counterfactuals

    @property
    def lambda_fool(self):
        """The weight of L_fool now: `fool_weight` after `fool_ramp_steps` steps, linear from 0 before."""
        return self.settings.fool_weight * self.ramp

    @property
    def ramp(self):
        """The share of its weight that L_fool has now: 1 after `fool_ramp_steps` steps, linear from 0 before."""
        steps = self.settings.fool_ramp_steps
        return ops.minimum(ops.cast(self.steps, keras.config.floatx()) / steps, 1.0) if steps else 1.0

    def _fooling_gradient(self, context, labels):
        """Returns (L_fool, d L_fool / d T), the gradient in float32 and on its way through D scaled."""
        scale, kind = self.player.autoencoder.scale_loss, self.settings.fool_loss

        def loss(context):
            draws = kind == "wrong_class_ce"
            wrong = losses.draw_wrong_labels(labels, self.num_classes, self.draws) if draws else None
            logits = self.discriminate(context)
            value = sum(losses.fooling_loss(member, labels, kind, wrong) for member in logits) / len(logits)
            return scale(value), value

        value, gradient = gradient_at(loss, to_float32(context))
        return value, gradient / scale(1.0)

    def assess(self, images, labels):
        """Returns the metrics that need no training step, everything in inference mode; labels of -1 are padding."""
        counted, labels = labels >= 0, ops.maximum(labels, 0)
        context, seen, _ = self._encoded(images, training=False)
        reconstructions = self.decode(context, self.condition(labels))
        measured = {"reconstruction_loss": ops.mean(ops.square(images - reconstructions), axis=(1, 2, 3))}
        if self.adversarial:
            logits = self.discriminate(seen)
            measured["discriminator_loss"] = sum(losses.cross_entropies(labels, x) for x in logits) / len(logits)
            measured["discriminator_accuracy"] = self._accuracy(logits, labels)
        for name, values in measured.items():
            self.trackers[name].update_state(values, sample_weight=counted)
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
