"""Residual networks with the activation after the addition (He et al. 2015a): for CIFAR and for ImageNet."""

import keras
from keras import layers

from cdc_keras.networks.attention import attend
from cdc_keras.networks.common import batch_norm, classify, conv, image_input
from cdc_keras.networks.layers import ZeroChannels

CIFAR_WIDTHS = (16, 32, 64)  # He et al. 2015a, Sec. 4.2
# He et al. 2015a, Table 1: blocks of each stage.
BASIC_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
IMAGENET_WIDTHS = (64, 128, 256, 512)
EXPANSION = 4  # of a bottleneck's output over its inner width
LARGEST_FOR_SMALL_STEM = 64  # pixels


def cifar_resnet(depth, image_size=32, *, num_classes, block_attention="none"):
    """Returns ResNet-`depth` for small images: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 6n + 2: 20, 32, 44, 56, 110, ...
        image_size: S, pixels.
        num_classes: number of categories.
        block_attention: "se" or "cbam" after the last batch norm of each block, before the addition; or "none".
    """
    images = image_input(image_size)
    x = _conv_bn_relu(images, CIFAR_WIDTHS[0], 3, "stem")  # (B, S, S, 16)
    for stage, width in enumerate(CIFAR_WIDTHS, 1):  # (B, S / 2^(stage - 1), S / 2^(stage - 1), width)
        for block in range(1, (depth - 2) // 6 + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = _residual(_pad(x, width, stride, name), _basic(x, width, stride, name), block_attention, name)
    return keras.Model(images, classify(x, num_classes), name=f"resnet{depth}")


def imagenet_resnet(depth, image_size=224, *, num_classes, block_attention="none", stem=None):
    """Returns ResNet-`depth` of four stages: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    The stride of a bottleneck is in its first 1x1 convolution, where He et al. 2015a have it (3.8G multiply-adds for
    ResNet-50); implementations that put it into the 3x3 convolution count 4.1G.

    Args:
        depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        image_size: S, pixels.
        num_classes: number of categories.
        block_attention: as for `cifar_resnet`.
        stem: "imagenet", a 7x7 convolution and a max-pool that together quarter the size, or "small", a 3x3
            convolution that keeps it; "small" up to 64 pixels by default.
    """
    bottleneck = depth in BOTTLENECK_STAGES
    stages = (BOTTLENECK_STAGES if bottleneck else BASIC_STAGES)[depth]
    if stem is None:
        stem = "small" if image_size <= LARGEST_FOR_SMALL_STEM else "imagenet"

    images = image_input(image_size)
    if stem == "imagenet":
        x = _conv_bn_relu(images, IMAGENET_WIDTHS[0], 7, "stem", stride=2)  # (B, S / 2, S / 2, 64)
        x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)  # after a ReLU zero is the smallest value
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)  # (B, S / 4, S / 4, 64)
    elif stem == "small":
        x = _conv_bn_relu(images, IMAGENET_WIDTHS[0], 3, "stem")  # (B, S, S, 64)
    else:
        raise ValueError(f'stem is "imagenet" or "small", not {stem!r}')

    for stage, (blocks, width) in enumerate(zip(stages, IMAGENET_WIDTHS, strict=True), 1):
        for block in range(1, blocks + 1):  # halved by each stage but the first
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            y = (_bottleneck if bottleneck else _basic)(x, width, stride, name)
            x = _residual(_project(x, y.shape[-1], stride, name), y, block_attention, name)
    return keras.Model(images, classify(x, num_classes), name=f"resnet{depth}")


def _conv_bn_relu(x, filters, kernel, name, stride=1):
    x = batch_norm(conv(x, filters, kernel, name, stride), f"{name}_bn")
    return layers.Activation("relu", name=f"{name}_act")(x)


def _basic(x, width, stride, name):
    """Returns BN(conv3x3(ReLU(BN(conv3x3(x)))))."""
    x = _conv_bn_relu(x, width, 3, f"{name}_conv1", stride)
    return batch_norm(conv(x, width, 3, f"{name}_conv2"), f"{name}_conv2_bn")


def _bottleneck(x, width, stride, name):
    """Returns BN(conv1x1(ReLU(BN(conv3x3(ReLU(BN(conv1x1(x)))))))), four times as wide as its middle."""
    x = _conv_bn_relu(x, width, 1, f"{name}_conv1", stride)
    x = _conv_bn_relu(x, width, 3, f"{name}_conv2")
    return batch_norm(conv(x, EXPANSION * width, 1, f"{name}_conv3"), f"{name}_conv3_bn")


def _residual(shortcut, x, block_attention, name):
    x = layers.Add(name=f"{name}_add")([shortcut, attend(x, block_attention, name)])
    return layers.Activation("relu", name=f"{name}_act")(x)


def _pad(x, width, stride, name):
    """Returns the shortcut of option A, without parameters: every second pixel, and zeros for the new channels."""
    if stride == 1:
        return x
    x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_shortcut_pool")(x)
    return ZeroChannels(width - x.shape[-1], name=f"{name}_shortcut_pad")(x)


def _project(x, width, stride, name):
    """Returns the shortcut of option B: a 1x1 convolution and batch norm where the shape changes."""
    if stride == 1 and x.shape[-1] == width:
        return x
    return batch_norm(conv(x, width, 1, f"{name}_shortcut", stride), f"{name}_shortcut_bn")
