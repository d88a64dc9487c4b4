"""SGD as PyTorch decays weights, the learning-rate schedule of A.1, and the scaling of losses for float16."""

import keras
from keras import ops

from cdc_keras.choices import RECIPES
from cdc_keras.gate.parts import PREFIX

WARMUP_LEARNING_RATE = 0.001  # A.1


class _Summed:
    """An optimizer whose gradients are those of the whole batch already, summed by `StepModel.gradients`.

    Keras would sum them over the replicas of a strategy itself, but only after it has clipped each by its own norm.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


@keras.saving.register_keras_serializable("cdc_keras")
class Adam(_Summed, keras.optimizers.Adam):
    """Keras' Adam for gradients of the whole batch."""


@keras.saving.register_keras_serializable("cdc_keras")
class CoupledSGD(_Summed, keras.optimizers.SGD):
    """SGD as PyTorch computes it: d = g + l2 w, v = momentum v + d, w = w - rate v (Nesterov: rate (d + momentum v)).

    `keras.optimizers.SGD` differs twice. Its `weight_decay` decays outside the momentum, at momentum 0.9 about ten
    times weaker than what the published recipes of wide residual networks do. And its velocity holds the learning
    rate, so that after a drop some ten steps still go at the old one.

    Args:
        learning_rate: a number or a schedule.
        l2: added to the gradient times the variable, for every variable; 5e-4 in the `wrn` recipe.
        gate_decays: False leaves l2 out for the variables of gates.
        gate_rate_factor: multiplies the learning rate of the variables of gates.
        **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, l2=0.0, gate_decays=True, gate_rate_factor=1.0, name="coupled_sgd", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.l2, self.gate_decays, self.gate_rate_factor = l2, gate_decays, gate_rate_factor

    def update_step(self, gradient, variable, learning_rate):
        step = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)  # TensorFlow's variables have no path
        of_gate = self._trainable_variables[index].path.startswith(PREFIX)
        if self.l2 and (self.gate_decays or not of_gate):
            step += self.l2 * variable
        if of_gate:
            learning_rate = learning_rate * self.gate_rate_factor
        if self.momentum:
            velocity = self.momentums[index]
            self.assign(velocity, self.momentum * velocity + step)
            step = step + self.momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * step)

    def get_config(self):
        names = ("l2", "gate_decays", "gate_rate_factor")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def recipe(name, learning_rate, *, gate_decays=True, gate_rate_factor=1.0):
    """Returns the optimizer of a recipe.

    Args:
        name: "wrn", Nesterov momentum 0.9 and coupled weight decay 5e-4 (Zagoruyko & Komodakis 2016), or "paper",
            neither: A.1's "SGD using default parameters" read literally.
        learning_rate: a number or a schedule.
        gate_decays, gate_rate_factor: as for `CoupledSGD`.

    Raises:
        ValueError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe is one of {', '.join(RECIPES)}, not {name!r}")
    gate = {"gate_decays": gate_decays, "gate_rate_factor": gate_rate_factor}
    if name == "wrn":
        return CoupledSGD(learning_rate, l2=5e-4, momentum=0.9, nesterov=True, **gate)
    return CoupledSGD(learning_rate, **gate)


def loss_scaled(optimizer, *networks):
    """Returns `optimizer`, inside Keras' dynamic loss scaling if weights of the networks get gradients in float16.

    Gradients below 6e-8 are 0 in float16. Scaled, the loss is multiplied by some power of two, and the gradients are
    divided by it in float32. If one is not finite, the step is left out: weights, the optimizer's state and its
    `iterations` stay as they are, and the scale is halved. After 2,000 steps that went well it is doubled.
    """
    layers = [layer for network in networks for layer in network.layers if layer.trainable_variables]
    if any(layer.compute_dtype == "float16" for layer in layers):
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def step_schedule(learning_rate, *, epochs, steps_per_epoch, warmup_epochs, drops=(0.3, 0.6, 0.8), factor=0.2):
    """Returns A.1's schedule: warm-up at 0.001, then `learning_rate`, multiplied by `factor` at every drop.

    Args:
        learning_rate: after the warm-up.
        epochs, steps_per_epoch: length of training.
        warmup_epochs: length of the warm-up, may be a fraction.
        drops: rising shares of training; by default those of CIFAR, epochs 60, 120 and 160 of 200.
        factor: of every drop.
    """
    boundaries = [int(warmup_epochs * steps_per_epoch)] + [int(x * epochs * steps_per_epoch) for x in drops]
    values = [min(WARMUP_LEARNING_RATE, learning_rate)] + [learning_rate * factor**i for i in range(len(drops) + 1)]
    if boundaries[0] <= 0:
        boundaries, values = boundaries[1:], values[1:]
    if any(b >= c for b, c in zip(boundaries, boundaries[1:], strict=False)):
        raise ValueError(
            f"warm-up of {warmup_epochs} epochs does not fit before {drops[0]:.0%} of {epochs} epochs, or two drops "
            "fall on one step; shorten it, or train longer"
        )
    if not boundaries:
        return learning_rate
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


def annealed(learning_rate, lengths, share):
    """Returns `learning_rate`, which falls linearly to 0 over the last `share` of each stage; itself if none falls.

    Args:
        learning_rate: at the beginning of each stage.
        lengths: steps of the stages of the training, one after the other.
        share: in [0, 1].
    """
    falls = [round(share * length) for length in lengths]
    return learning_rate if not any(falls) else _Annealed(learning_rate, list(lengths), falls)


@keras.saving.register_keras_serializable("cdc_keras")
class _Annealed(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, learning_rate, lengths, falls):
        self.learning_rate, self.lengths, self.falls = learning_rate, lengths, falls

    def __call__(self, step):
        step, end, rate = ops.cast(step, keras.config.floatx()), 0, 0.0
        for length, fall in zip(self.lengths, self.falls, strict=True):
            begin, end = end, end + length
            of_stage = self.learning_rate * ops.clip((end - step) / max(fall, 1), 0.0, 1.0)
            rate = ops.where(step >= begin, of_stage, rate) if length else rate
        return rate

    def get_config(self):
        return {"learning_rate": self.learning_rate, "lengths": self.lengths, "falls": self.falls}
