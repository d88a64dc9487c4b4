"""Trains the same thing on one logical CPU and on several and prints how far apart it ends, as JSON.

python tests/distributed.py <extractor, classifier or transfer> <replicas> <float32 or float64> <steps>
A process of its own: the logical devices are set before TensorFlow starts, and their number is then for good.
With TF_CONFIG, <replicas> is the number of workers, each a process of its own that runs this; the chief prints.
"""

import json
import os
import random
import sys

import keras
import numpy as np
import tensorflow as tf

from cdc_keras.data.dataset import Split
from cdc_keras.data.pipeline import evaluation_batches, evaluation_steps, training_batches
from cdc_keras.devices import cluster, distribution
from cdc_keras.networks import registry
from cdc_keras.trainers import optimizers
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.trainers.distillation import AttentionTransfer, pair_by_resolution

BATCH, EVALUATED = 32, 45  # 45 is 32 + 13, and neither is 13 a multiple of 2 nor of 4


def build(kind):
    random.seed(0)
    if kind == "extractor":
        model = Disentangler(32, 10, fool_ramp_steps=0, fool_loss="wrong_class_ce")
        model.compile()
        return model
    student = registry.build("resnet8", 32, num_classes=10, block_attention="cbam")
    if kind == "classifier":
        model = Classifier(student)
    else:
        teacher = registry.build("wrn10_1", 32, num_classes=10)
        pairs = pair_by_resolution(student, registry.groups(student), teacher, registry.groups(teacher))
        model = AttentionTransfer(student, pairs, teacher)
    model.compile(optimizers.recipe("wrn", 0.05))
    return model


def run(kind, strategy, replicas, steps):
    """Returns ({path: weights}, {name: metric}) after training and evaluation."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(steps * BATCH, 32, 32, 3), dtype=np.uint8)
    split = Split(images, np.arange(len(images), dtype=np.int32) % 10)
    held_out = rng.integers(256, size=(EVALUATED, 32, 32, 3), dtype=np.uint8)
    held_out = Split(held_out, np.arange(EVALUATED, dtype=np.int32) % 10)
    with distribution.scope(strategy):
        assert distribution.replicas() == replicas
        model = build(kind)
        batches = training_batches(split, 32, batch_size=BATCH, seed=0, epoch=0, crop_padding=4, flip=True)
        metrics = {
            k: v[0] for k, v in model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False).history.items()
        }
        length = {"steps": evaluation_steps(held_out, batch_size=BATCH)} if replicas > 1 else {}
        held_out = evaluation_batches(held_out, 32, batch_size=BATCH)
        scores = model.evaluate(held_out, verbose=0, return_dict=True, **length)
    weights = {v.path: np.asarray(v) for v in model.variables if "seed_generator" not in v.path}
    return weights, metrics | {f"val_{k}": v for k, v in scores.items()}


def main(kind, replicas, floatx, steps):
    keras.config.set_floatx(floatx)
    if os.environ.get("TF_CONFIG"):
        weights, others = run(kind, "multi_worker", replicas, steps)
        if cluster.from_environment().index > 0:
            return
        del os.environ["TF_CONFIG"]
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
        tf.config.set_logical_device_configuration(cpu, devices)
        weights, others = run(kind, "mirrored", replicas, steps)
    expected, metrics = run(kind, "none", 1, steps)
    assert weights.keys() == expected.keys() and others.keys() == metrics.keys()
    apart = np.concatenate([np.abs(weights[path] - expected[path]).ravel() for path in expected])
    result = {
        "weights": float(apart.max()),
        "share_above_1e-5": float(np.mean(apart > 1e-5)),
        "metrics": {k: abs(others[k] - metrics[k]) / max(1, abs(metrics[k])) for k in metrics},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
