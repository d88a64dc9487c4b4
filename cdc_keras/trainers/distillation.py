"""Attention transfer (AT, Zagoruyko & Komodakis 2017): a student whose attention maps are to look like a teacher's."""

import keras
from keras import ops

from cdc_keras.devices.precision import to_float32
from cdc_keras.gate.parts import output_at
from cdc_keras.networks import graph
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.losses import cross_entropies
from cdc_keras.trainers.metrics import Mean


def attention_map(features):
    """Returns where a feature map is active: mean_c F^2, flattened, of length 1 for each image; (B, H W).

    Args:
        features: (B, H, W, C).
    """
    energy = ops.mean(ops.square(to_float32(features)), axis=-1)
    return ops.normalize(ops.reshape(energy, (ops.shape(energy)[0], -1)), axis=-1, order=2, epsilon=1e-12)


def transfer_loss(student, teacher):
    """Returns the mean squared difference of two attention maps of one resolution.

    Args:
        student, teacher: (B, H W), from `attention_map`.
    """
    return ops.mean(ops.square(student - teacher))


def pair_by_resolution(student, student_groups, teacher, teacher_groups):
    """Returns {"16x16": (layer of the student, layer of the teacher), ...} for every resolution both have.

    Args:
        student, teacher: functional classifiers, plain or gated; of a gated group the gate's output is taken.
        student_groups, teacher_groups: names of the layers that end their groups (`registry.groups`); of two groups at
            one resolution the deeper one counts.

    Raises:
        ValueError: naming the resolutions of both, if they have none in common.
    """
    ours, theirs = _by_resolution(student, student_groups), _by_resolution(teacher, teacher_groups)
    pairs = {shape: (ours[shape], theirs[shape]) for shape in ours if shape in theirs}
    if not pairs:
        raise ValueError(
            f"student and teacher have no resolution in common: the student's groups end at {', '.join(ours)}, the "
            f"teacher's at {', '.join(theirs)}"
        )
    return pairs


class AttentionTransfer(Classifier):
    """Trains `network` under cross-entropy and, for each pair of groups, the difference of the attention maps.

    The teacher runs in inference mode, gets no gradient and is not part of this model: neither its weights nor its
    statistics are saved with the student's, or can be trained through it.

    Args:
        network: functional model, images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes): the student.
        pairs: what `pair_by_resolution` returned.
        teacher: functional model of the same images; None for a model that is only evaluated.
        weight: of the sum of the groups' losses; 1000.
    """

    def __init__(self, network, pairs, teacher=None, weight=1e3, **kwargs):
        super().__init__(network, **kwargs)
        self.pairs, self.weight = dict(pairs), weight
        names = ["cross_entropy", *(f"transfer_{name}" for name in pairs)]
        self.part_trackers = [Mean(name) for name in names]
        student = _with_maps(network, [ours for ours, _ in pairs.values()])
        teacher = teacher and _with_maps(teacher, [theirs for _, theirs in pairs.values()])
        # In functions, which Keras does not look into: as attributes they would be parts of this model.
        self.student_maps = lambda images: student(images, training=True)
        self.teacher_maps = lambda images: teacher(images, training=False)

    @property
    def metrics(self):
        return [*super().metrics, *self.part_trackers]

    def update(self, images, labels):
        """Moves the student's trainable variables by one step; returns the losses, top-1 and top-5 so far."""
        images, labels = self.painted(images, labels)
        _, features = self.teacher_maps(images)
        targets = [ops.stop_gradient(attention_map(x)) for x in features]

        def loss():
            logits, features = self.student_maps(images)
            transfers = [transfer_loss(attention_map(x), y) for x, y in zip(features, targets, strict=True)]
            entropy = ops.mean(cross_entropies(labels, logits))
            total = entropy + self.weight * sum(transfers) + sum(self.network.losses)
            return total, (total, [entropy, *transfers], logits)

        variables = self.trainable_variables
        (total, parts, logits), gradients = self.gradients(loss, variables, self.optimizer)
        self.optimizer.apply(gradients, variables)
        for tracker, value in zip(self.part_trackers, parts, strict=True):
            tracker.update_state(value, sample_weight=ops.shape(labels)[0])
        return self.track(total, labels, logits)

    def assess(self, images, labels):
        """Returns cross-entropy, top-1 and top-5 so far, in inference mode and without the teacher."""
        logs = super().assess(images, labels)
        return {"cross_entropy": logs["loss"], "top1": logs["top1"], "top5": logs["top5"]}


def _with_maps(network, names):
    """Returns `network` with outputs (logits, [the output of each layer of `names`])."""
    rebuilt, tensors = graph.outputs(network)
    return keras.Model(rebuilt.inputs[0], (rebuilt.outputs[0], [tensors[name] for name in names]))


def _by_resolution(network, groups):
    """Returns {"16x16": layer, ...} for the ends of the groups: the gate's output where there is a gate."""
    tensors = graph.outputs(network)[1]
    ends = [output_at(network, name) for name in groups]
    return {resolution(tensors[name]): name for name in ends}


def resolution(features):
    """Returns "HxW" of a tensor (B, H, W, C)."""
    return "{}x{}".format(*features.shape[1:3])
