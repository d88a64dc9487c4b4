"""The classifiers by name: one table from `--network` to a builder and its default gate sites."""

import functools

import keras

from cdc_keras.networks.resnet import resnet, resnet_sites
from cdc_keras.networks.vgg import vgg, vgg_sites


def mobilenet_v2(image_size, *, num_classes):
    """Returns keras.applications' MobileNetV2 with random weights: images in [-1, 1] -> logits (B, num_classes)."""
    return keras.applications.MobileNetV2(
        input_shape=(image_size, image_size, 3), weights=None, classes=num_classes, classifier_activation=None
    )


def mobilenet_v2_sites(image_size, resolutions):
    """Returns the last addition of each group of inverted residuals at one of `resolutions`."""
    groups = {4: "block_2_add", 8: "block_5_add", 16: "block_12_add", 32: "block_15_add"}
    return [name for stride, name in groups.items() if image_size // stride in resolutions]


NETWORKS = {
    "vgg13": (functools.partial(vgg, 13), functools.partial(vgg_sites, 13)),
    "vgg16": (functools.partial(vgg, 16), functools.partial(vgg_sites, 16)),
    "vgg13_slim": (functools.partial(vgg, 13, width_divisor=4), functools.partial(vgg_sites, 13)),
    **{
        f"resnet{depth}": (functools.partial(resnet, depth), functools.partial(resnet_sites, depth))
        for depth in (20, 32, 44, 56, 110)
    },
    "mobilenet_v2": (mobilenet_v2, mobilenet_v2_sites),
}


def build(name, image_size, *, num_classes):
    """Returns the classifier `name`: a functional model, images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Raises:
        ValueError: for a name that is not in `NETWORKS`.
    """
    return _entry(name)[0](image_size, num_classes=num_classes)


def default_sites(name, image_size, context_size):
    """Returns the names of the layers gated by default: at T's resolution and at twice it (A.1), shallow to deep."""
    return _entry(name)[1](image_size, (context_size, 2 * context_size))


def _entry(name):
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name]
