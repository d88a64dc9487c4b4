"""VGG with batch norm, no dropout and one dense layer (Simonyan & Zisserman 2014; A.1, "Backbones")."""

import keras
from keras import layers

from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv, image_input

# Simonyan & Zisserman 2014, Table 1, columns B and D: convolutions in each of the five blocks.
BLOCKS = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


def vgg(depth, image_size=32, *, num_classes, width_divisor=1):
    """Returns VGG-`depth`-BN: images (B, S, S, 3) in [-1, 1] -> logits (B, num_classes).

    Args:
        depth: 13 or 16.
        image_size: S, pixels; at least 32.
        num_classes: number of categories.
        width_divisor: divides every width; 1 is the paper's network, 4 the slim one that a CPU trains.
    """
    if depth not in BLOCKS:
        raise ValueError(f"VGG comes with depth 13 or 16, not {depth}")
    images = image_input(image_size)

    x = images
    for block, (convs, width) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True), 1):
        for i in range(1, convs + 1):
            name = f"block{block}_conv{i}"
            x = conv(x, width // width_divisor, 3, name, use_bias=True)
            x = layers.Activation("relu", name=f"{name}_act")(batch_norm(x, f"{name}_bn"))
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)  # (B, S / 2^block, S / 2^block, width)

    x = layers.GlobalAveragePooling2D(name="pool")(x)  # at 32 px the map is 1x1 already
    x = layers.Dense(num_classes, kernel_initializer=HE_NORMAL, dtype="float32", name="logits")(x)
    return keras.Model(images, x, name=f"vgg{depth}")


def vgg_sites(depth, image_size, resolutions):
    """Returns the layers a gate follows: the last BN, before ReLU, of each block that works at one of `resolutions`.

    Sec. 3: "the feature maps outputted by the convolutional layer that is just before a maximum pooling layer and have
    the same resolution as the CDC".
    """
    convs = BLOCKS[depth]
    return [
        f"block{block}_conv{convs[block - 1]}_bn"
        for block in range(1, len(convs) + 1)
        if image_size // 2 ** (block - 1) in resolutions
    ]
