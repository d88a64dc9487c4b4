"""The conventions every network here shares: batch norm, initialisation and symmetric padding as in the papers."""

import keras
from keras import layers

from cdc_keras.devices import distribution
from cdc_keras.networks.layers import BatchNormalization

# The PyTorch defaults the paper trained with; Keras' own are momentum 0.99, epsilon 1e-3, and Glorot.
BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5
HE_NORMAL = "he_normal"  # He et al. 2015b


def batch_norm(x, name, **kwargs):
    """Returns x normalised over the batch, under a strategy over the parts of all replicas."""
    layer = BatchNormalization(
        momentum=BN_MOMENTUM, epsilon=BN_EPSILON, synchronized=distribution.replicas() > 1, name=name, **kwargs
    )
    return layer(x)


def conv(x, filters, kernel, name, stride=1, use_bias=False, initializer=HE_NORMAL):
    """Returns a convolution of x, padded by (kernel - 1) // 2 pixels on every side.

    Keras' "same" is that padding at stride 1 and for 4/2 on even sizes; at 3/2 it pads nothing before and one pixel
    after, so there the padding is a layer of its own.
    """
    pad = (kernel - 1) // 2
    same = stride == 1 or (kernel == 4 and stride == 2 and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0)
    if pad and not same:
        x = layers.ZeroPadding2D(pad, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same" if same else "valid",
        use_bias=use_bias,
        kernel_initializer=initializer,
        name=name,
    )(x)


def image_input(image_size, channels=3):
    """Returns the named input of every network: images (B, image_size, image_size, channels) in [-1, 1]."""
    return keras.Input((image_size, image_size, channels), name="images")


def classify(x, num_classes):
    """Returns the logits (B, num_classes), not in half precision under any policy, of features (B, H, W, C)."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(num_classes, kernel_initializer=HE_NORMAL, dtype=keras.config.floatx(), name="logits")(x)
