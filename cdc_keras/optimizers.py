"""SGD as PyTorch decays weights, and the learning-rate schedule of A.1."""

import keras
from keras import ops

WARMUP_LEARNING_RATE = 0.001  # A.1
MILESTONES, FACTOR = (0.3, 0.6, 0.8), 0.2  # A.1: divided by 5 at 60, 120 and 160 of 200 epochs


@keras.saving.register_keras_serializable("cdc_keras")
class CoupledSGD(keras.optimizers.SGD):
    """SGD with weight decay as an L2 term in the gradient, and so inside the momentum.

    `keras.optimizers.SGD(weight_decay=)` decays outside the momentum, which at momentum 0.9 is about ten times weaker
    than what the published recipes of wide residual networks do.

    Args:
        learning_rate: a number or a schedule.
        l2: added to the gradient times the variable, for every variable; 5e-4 in the `wrn` recipe.
        **kwargs: as for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate, l2=0.0, name="coupled_sgd", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        if self.l2:
            gradient = gradient + ops.cast(self.l2, gradient.dtype) * ops.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}


def recipe(name, learning_rate):
    """Returns the optimizer of a recipe.

    Args:
        name: "wrn", Nesterov momentum 0.9 and coupled weight decay 5e-4 (Zagoruyko & Komodakis 2016), or "paper",
            neither: A.1's "SGD using default parameters" read literally.
        learning_rate: a number or a schedule.
    """
    if name == "wrn":
        return CoupledSGD(learning_rate, l2=5e-4, momentum=0.9, nesterov=True)
    return CoupledSGD(learning_rate)


def step_schedule(learning_rate, *, epochs, steps_per_epoch, warmup_epochs):
    """Returns A.1's schedule: warm-up at 0.001, then `learning_rate` divided by 5 at 30%, 60% and 80% of training.

    Args:
        learning_rate: after the warm-up.
        epochs, steps_per_epoch: length of training.
        warmup_epochs: length of the warm-up, may be a fraction.
    """
    boundaries = [int(warmup_epochs * steps_per_epoch)] + [int(m * epochs * steps_per_epoch) for m in MILESTONES]
    values = [min(WARMUP_LEARNING_RATE, learning_rate)] + [
        learning_rate * FACTOR**i for i in range(len(MILESTONES) + 1)
    ]
    if boundaries[0] <= 0:
        boundaries, values = boundaries[1:], values[1:]
    if any(b >= c for b, c in zip(boundaries, boundaries[1:], strict=False)):
        raise ValueError(f"warm-up of {warmup_epochs} epochs does not fit before 30% of {epochs} epochs; shorten it")
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
