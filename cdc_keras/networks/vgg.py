"""VGG with batch norm, no dropout and one dense layer (Simonyan & Zisserman 2014; A.1, "Backbones")."""

import keras
from keras import layers

from cdc_keras.networks.attention import attend
from cdc_keras.networks.common import batch_norm, classify, conv, image_input

# Simonyan & Zisserman 2014, Table 1, columns B and D: convolutions in each of the five blocks.
BLOCKS = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (1, 2, 4, 8, 8)  # of the blocks, over that of the first, which is 64
LEAST_SIZE = 32  # five poolings


def vgg(depth, image_size=32, *, num_classes, width=64, block_attention="none"):
    """Returns VGG-`depth`-BN: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 13 or 16.
        image_size: S, pixels; at least 32.
        num_classes: number of categories.
        width: channels of the first block, to which the others are in proportion; 64 in the paper's network, 16 in
            the slim one that a CPU trains.
        block_attention: "se" or "cbam" after the last batch norm of each block, before its ReLU; "none" leaves it out.
    """
    if image_size < LEAST_SIZE:
        raise ValueError(f"VGG halves an image five times and takes at least {LEAST_SIZE} pixels, not {image_size}")
    images = image_input(image_size)

    x = images
    for block, (convs, factor) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True), 1):
        for i in range(1, convs + 1):
            name = f"block{block}_conv{i}"
            x = batch_norm(conv(x, factor * width, 3, name, use_bias=True), f"{name}_bn")
            if i == convs:
                x = attend(x, block_attention, f"block{block}")
            x = layers.Activation("relu", name=f"{name}_act")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)  # (B, S / 2^block, S / 2^block, factor * width)

    return keras.Model(images, classify(x, num_classes), name=f"vgg{depth}")  # at 32 px the map is 1x1 already


def vgg_of_width(depth, width, image_size, **settings):
    """Returns `vgg` with `width` channels in its first block, arguments in the order of a network's name."""
    return vgg(depth, image_size, width=width, **settings)
