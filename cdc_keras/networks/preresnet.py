"""Residual networks with the activation before each convolution (He et al. 2016), thin or wide (WRN)."""

import keras
from keras import layers

from cdc_keras.networks.attention import attend
from cdc_keras.networks.common import batch_norm, classify, conv, image_input

WIDTHS = (16, 32, 64)  # He et al. 2016, Sec. 4; times k: Zagoruyko & Komodakis 2016, Table 1
DEPTHS = {110: False, 164: True}  # whether the blocks are bottlenecks; He et al. 2016, Table 3
EXPANSION = 4  # of a bottleneck's output over its inner width


def preresnet(depth, image_size=32, *, num_classes, block_attention="none"):
    """Returns pre-activation ResNet-`depth`: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 110, of basic blocks, or 164, of bottlenecks (He et al. 2016, Table 3).
        image_size: S, pixels.
        num_classes: number of categories.
        block_attention: "se" or "cbam" after the last convolution of each block, before the addition; or "none".
    """
    return _network(
        f"preresnet{depth}",
        image_size,
        num_classes,
        (depth - 2) // (9 if DEPTHS[depth] else 6),
        WIDTHS,
        bottleneck=DEPTHS[depth],
        activate_stem=True,
        block_attention=block_attention,
    )


def wide_resnet(depth, widening, image_size=32, *, num_classes, block_attention="none"):
    """Returns WRN-`depth`-`widening`: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40, ...
        widening: k, the factor on the widths 16, 32 and 64.
        image_size: S, pixels.
        num_classes: number of categories.
        block_attention: as for `preresnet`.
    """
    return _network(
        f"wrn{depth}_{widening}",
        image_size,
        num_classes,
        (depth - 4) // 6,
        [widening * width for width in WIDTHS],
        bottleneck=False,
        activate_stem=False,
        block_attention=block_attention,
    )


def _network(title, image_size, num_classes, blocks, widths, *, bottleneck, activate_stem, block_attention):
    images = image_input(image_size)
    x = conv(images, WIDTHS[0], 3, "stem")  # (B, S, S, 16)
    for stage, width in enumerate(widths, 1):  # (B, S / 2^(stage - 1), S / 2^(stage - 1), width or 4 width)
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            early = activate_stem and stage == block == 1
            x = _block(x, width, stride, name, bottleneck=bottleneck, early=early, block_attention=block_attention)
    x = _bn_relu(x, "final")
    return keras.Model(images, classify(x, num_classes), name=title)


def _block(x, width, stride, name, *, bottleneck, early, block_attention):
    """Returns shortcut(x) + F(x), F = two 3x3 convolutions or 1x1, 3x3, 1x1, each after batch norm and ReLU.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated x (Zagoruyko & Komodakis 2016). With
    `early` it is the activated x itself, as in the first block of He et al. 2016, "Implementation Details".
    """
    outputs, kernels = (EXPANSION * width, (1, 3, 1)) if bottleneck else (width, (3, 3))
    shortcut, y = x, x
    for i, kernel in enumerate(kernels, 1):
        y = _bn_relu(y, f"{name}_conv{i}")
        if i == 1 and (stride != 1 or x.shape[-1] != outputs):
            shortcut = conv(y, outputs, 1, f"{name}_shortcut", stride)
        elif i == 1 and early:
            shortcut = y
        filters = outputs if i == len(kernels) else width
        y = conv(y, filters, kernel, f"{name}_conv{i}", stride if i == 1 else 1)
    return layers.Add(name=f"{name}_add")([shortcut, attend(y, block_attention, name)])


def _bn_relu(x, name):
    return layers.Activation("relu", name=f"{name}_act")(batch_norm(x, f"{name}_bn"))
