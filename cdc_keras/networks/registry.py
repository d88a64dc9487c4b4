"""The classifiers by name: `build("wrn16_10", 32, num_classes=10)`, and where a gate goes in each.

A name is a family and its depth, as the field writes them: vgg13, resnet32, preresnet110, wrn16_10, resnet50. ResNets
of depth 6n + 2 are the CIFAR ones of three stages; 18, 34, 50, 101 and 152 those of ImageNet (50 is both, and means
ImageNet's).
"""

import functools
import re

import keras

from cdc_keras.choices import BLOCK_ATTENTIONS, NORMALIZATIONS, find_network
from cdc_keras.networks import graph, preresnet, resnet, vgg

# Means and standard deviations of ImageNet's training images per channel, in [0, 1] (He et al. 2015a and since).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What builds a network of each of `choices.FAMILIES` of its numbers.
BUILDERS = {
    "vgg": vgg.vgg,
    "vgg_slim": functools.partial(vgg.vgg, width=16),
    "vgg_width": vgg.vgg_of_width,
    "imagenet_resnet": resnet.imagenet_resnet,
    "cifar_resnet": resnet.cifar_resnet,
    "preresnet": preresnet.preresnet,
    "wide_resnet": preresnet.wide_resnet,
}
IN_GROUP = re.compile(r"((?:stage|block)\d+)_.*(?<!_pool)")  # the name of a layer, its group first; pooling follows it


def build(name, image_size, *, num_classes, block_attention="none", normalization="none"):
    """Returns the classifier `name`: a functional model, images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        name: see `choices.FAMILIES`.
        image_size: S, pixels.
        num_classes: number of categories.
        block_attention: "se" or "cbam" in every block (`networks.attention`), or "none".
        normalization: "imagenet" brings the images, inside the network, to mean 0 and deviation 1 over ImageNet; what
            else sees the images, such as the extractor, sees them in [-1, 1].

    Raises:
        ValueError: for a name that is none, or an image size the network cannot take.
    """
    family, numbers = find_network(name)
    if block_attention not in BLOCK_ATTENTIONS:
        raise ValueError(f"block_attention is one of {', '.join(BLOCK_ATTENTIONS)}, not {block_attention!r}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization is one of {', '.join(NORMALIZATIONS)}, not {normalization!r}")
    network = BUILDERS[family](*numbers, image_size, num_classes=num_classes, block_attention=block_attention)
    return network if normalization == "none" else _normalized(network)


def groups(network):
    """Returns the names of the layers that end the groups of a classifier that `build` made, shallow to deep.

    A group ends with its ReLU, in a pre-activation network with its last addition. These outputs are what attention
    transfer compares and what a discriminative model gives as its context. Of a gated network they are the same.
    """
    matches = (IN_GROUP.fullmatch(layer.name) for layer in network.layers)
    return list({match[1]: match[0] for match in matches if match}.values())


def sites(network, *resolutions):
    """Returns the names of the layers a gate follows: the ends of the groups before activation (Sec. 3).

    Args:
        network: what `build` returned.
        *resolutions: heights of feature maps, pixels; A.1 has T's and twice it.
    """
    calls = {layer.name: (layer, tensors, output) for layer, tensors, output in graph.trace(network)[1]}
    producers = {id(output): layer for layer, _, output in calls.values()}
    names = []
    for layer, tensors, output in (calls[end] for end in groups(network)):
        if output.shape[1] in resolutions:
            activates = isinstance(layer, keras.layers.Activation)
            names.append(producers[id(tensors[0])].name if activates else layer.name)
    return names


def _normalized(network):
    """Returns `network` on images brought to mean 0 and deviation 1 over ImageNet."""
    mean = [2 * m - 1 for m in IMAGENET_MEAN]  # of images in [-1, 1]
    normalize = keras.layers.Normalization(mean=mean, variance=[(2 * s) ** 2 for s in IMAGENET_STD], name="normalize")
    images = keras.Input(network.input_shape[1:], name="images")
    normalized = normalize(images)

    def call(layer, *args, **kwargs):
        return layer(*[normalized if x is images else x for x in args], **kwargs)

    return graph.rebuild(network, call, inputs=images)
