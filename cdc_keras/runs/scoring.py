"""The scores of a model on a split, from one pass over it: everything that is scored here is scored by `score`."""

import dataclasses
import time

import keras
import numpy as np

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Split
from cdc_keras.data.pipeline import evaluation_batches, evaluation_steps
from cdc_keras.devices import distribution
from cdc_keras.errors import UserError
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.trainers.step import StepModel

BATCH = 250
ORDER_SEED = 0  # of the random order in which a classifier is scored whose gate sees the context of another image


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one pass over a split measured.

    Attributes:
        metrics: {name: mean over the images}. Of a classifier these are `loss` (cross-entropy, nats), and `top1` and
            `top5`, shares in [0, 1]. Of equal logits the first counts as the higher one.
        confusion: (num_classes, num_classes) counts, row the true category, column the predicted one; None for an
            extractor.
        of_groups: (groups, num_classes, num_classes), the same counts for each group; None without groups.
        images_per_second: without the first call, which compiles; None if there was no other.
    """

    metrics: dict[str, float]
    confusion: np.ndarray | None
    of_groups: np.ndarray | None
    images_per_second: float | None

    def check_finite(self) -> "Scores":
        """Returns the scores themselves.

        Raises:
            UserError: one of the metrics is NaN or infinite.
        """
        if not np.isfinite(list(self.metrics.values())).all():
            raise UserError("the network's outputs are not finite, so they cannot be scored; it was trained to NaN")
        return self


def score(
    model: Classifier | Disentangler | keras.Model,
    split: Split,
    config: RunConfig,
    groups: np.ndarray | None = None,
) -> Scores:
    """Returns the `Scores` of a model on a split, in inference mode and without augmentation.

    The images come in stored order, except for the control `gate_context=shuffled`. Its gate sees the context of the
    image before, and in a folder that is stored class by class that image would be of the same category. So the images
    come in a random order that is always the same.

    Args:
        model: a compiled `Disentangler` or `Classifier`, or a functional model, images in [-1, 1] -> logits.
        split: any but an empty one.
        config: the `RunConfig` that the model was trained with.
        groups: of a classifier, (N,) integers from 0, which group each image of a split in memory is in.
    """
    count = 1 if groups is None else int(groups.max()) + 1
    if groups is not None:
        model = model.network if isinstance(model, Classifier) else model
        split = Split(split.images, (split.labels + groups * model.outputs[0].shape[-1]).astype("int32"))
    if not isinstance(model, StepModel):
        model = Classifier(model, groups=count)
        model.compile()
    length = {"batch_size": BATCH, "steps_per_call": config.steps_per_call}
    order_seed = ORDER_SEED if config.gate_context == "shuffled" else None
    batches = evaluation_batches(split, config.image_size, order_seed=order_seed, **length)
    jax = keras.backend.backend() == "jax"
    steps = evaluation_steps(split, **length) if jax or distribution.replicas() > 1 else None
    clock = _Clock()
    metrics = model.evaluate(batches, steps=steps, callbacks=[clock], verbose=0, return_dict=True)
    seconds = time.monotonic() - clock.started
    timed = len(split) - clock.calls * BATCH * (config.steps_per_call if jax else 1)
    confusion = of_groups = None
    if isinstance(model, Classifier):
        counts = model.confusion.numpy()
        of_groups = counts.reshape(count, -1, counts.shape[1])
        confusion = of_groups.sum(axis=0)
    return Scores(
        metrics={name: float(value) for name, value in metrics.items()},
        confusion=confusion,
        of_groups=None if groups is None else of_groups,
        images_per_second=timed / seconds if timed > 0 else None,
    )


class _Clock(keras.callbacks.Callback):
    """Notes when the first call was done, and of how many steps it was."""

    started = None

    def on_test_batch_end(self, batch, logs=None):
        if self.started is None:
            for value in logs.values():
                keras.ops.convert_to_numpy(value)  # waits for the device
            self.started, self.calls = time.monotonic(), batch + 1
