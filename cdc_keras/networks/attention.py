"""Attention inside the blocks of a backbone, the rivals of the gate: SE and CBAM (Tables 3 to 6)."""

from keras import layers

from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv
from cdc_keras.networks.layers import ChannelPool

REDUCTION = 16  # Hu et al. 2018, Sec. 4; Woo et al. 2018, Sec. 3
SE_LEAST_WIDTH = 4  # a CIFAR ResNet's 16 channels over 16 would leave one
SPATIAL_KERNEL = 7  # Woo et al. 2018, Sec. 3


def squeeze_excite(x, name):
    """Returns x, (B, H, W, C), each channel weighted by sigmoid(W2 ReLU(W1 mean(x))) (Hu et al. 2018, Eqs. 2 to 4)."""
    channels = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_pool")(x)  # (B, 1, 1, C)
    for layer in _bottleneck(channels, max(channels // REDUCTION, SE_LEAST_WIDTH), name):
        weights = layer(weights)
    weights = layers.Activation("sigmoid", name=f"{name}_weights")(weights)
    return layers.Multiply(name=f"{name}_out")([x, weights])


def cbam(x, name):
    """Returns x, (B, H, W, C), weighted by channel and then by position (Woo et al. 2018, Eqs. 2 and 3).

    The batch norm of the spatial map starts with gamma 0, as the authors train it: the map starts as 1/2 everywhere.
    """
    channels = x.shape[-1]
    shared = _bottleneck(channels, max(channels // REDUCTION, 1), f"{name}_channel")
    branches = []
    for kind, pool in (("mean", layers.GlobalAveragePooling2D), ("max", layers.GlobalMaxPooling2D)):
        branch = pool(keepdims=True, name=f"{name}_channel_{kind}")(x)  # (B, 1, 1, C)
        for layer in shared:
            branch = layer(branch)
        branches.append(branch)
    weights = layers.Add(name=f"{name}_channel_sum")(branches)
    weights = layers.Activation("sigmoid", name=f"{name}_channel_weights")(weights)
    x = layers.Multiply(name=f"{name}_channel_out")([x, weights])

    positions = ChannelPool(("max", "mean"), name=f"{name}_spatial_pool")(x)  # (B, H, W, 2)
    positions = conv(positions, 1, SPATIAL_KERNEL, f"{name}_spatial_conv")
    positions = batch_norm(positions, f"{name}_spatial_bn", gamma_initializer="zeros")
    positions = layers.Activation("sigmoid", name=f"{name}_spatial_weights")(positions)
    return layers.Multiply(name=f"{name}_out")([x, positions])


_BLOCKS = {"none": None, "se": squeeze_excite, "cbam": cbam}


def attend(x, kind, name):
    """Returns x after the block attention `kind`, one of `choices.BLOCK_ATTENTIONS`."""
    attention = _BLOCKS[kind]
    return x if attention is None else attention(x, f"{name}_{kind}")


def _bottleneck(channels, hidden, name):
    """Returns the two dense layers, with biases, of a channel attention; on (B, 1, 1, C)."""
    return (
        layers.Dense(hidden, activation="relu", kernel_initializer=HE_NORMAL, name=f"{name}_dense1"),
        layers.Dense(channels, kernel_initializer=HE_NORMAL, name=f"{name}_dense2"),
    )
