"""ResNets for 32 px images, depth 6n + 2, option-A shortcuts (He et al. 2015a, Sec. 4.2)."""

import keras
from keras import layers

from cdc_keras.layers import ZeroChannels
from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv, image_input

WIDTHS = (16, 32, 64)  # He et al. 2015a, Sec. 4.2


def resnet(depth, image_size=32, *, num_classes):
    """Returns ResNet-`depth`: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 6n + 2: 20, 32, 44, 56, 110, ...
        image_size: S, pixels; a multiple of 4.
        num_classes: number of categories.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"a CIFAR ResNet has depth 6n + 2 (20, 32, 44, 56, 110, ...), not {depth}")
    images = image_input(image_size)
    x = conv(images, WIDTHS[0], 3, "stem_conv")
    x = layers.Activation("relu", name="stem_act")(batch_norm(x, "stem_bn"))  # (B, S, S, 16)

    for stage, width in enumerate(WIDTHS, 1):  # (B, S / 2^(stage - 1), S / 2^(stage - 1), width)
        for block in range(1, (depth - 2) // 6 + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width, stride, f"stage{stage}_block{block}")

    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(num_classes, kernel_initializer=HE_NORMAL, dtype="float32", name="logits")(x)
    return keras.Model(images, x, name=f"resnet{depth}")


def resnet_sites(depth, image_size, resolutions):
    """Returns the layers a gate follows: the last addition, before ReLU, of each group at one of `resolutions`."""
    last = (depth - 2) // 6
    return [
        f"stage{stage}_block{last}_add"
        for stage in range(1, len(WIDTHS) + 1)
        if image_size // 2 ** (stage - 1) in resolutions
    ]


def _basic_block(x, width, stride, name):
    """Returns ReLU(shortcut(x) + BN(conv(ReLU(BN(conv(x))))))."""
    y = conv(x, width, 3, f"{name}_conv1", stride)
    y = layers.Activation("relu", name=f"{name}_conv1_act")(batch_norm(y, f"{name}_conv1_bn"))
    y = batch_norm(conv(y, width, 3, f"{name}_conv2"), f"{name}_conv2_bn")
    if stride != 1:
        # Option A, no parameters: every second pixel, and zeros for the new channels.
        x = layers.AveragePooling2D(1, strides=stride, name=f"{name}_shortcut_pool")(x)
        x = ZeroChannels(width - x.shape[-1], name=f"{name}_shortcut_pad")(x)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation("relu", name=f"{name}_act")(x)
