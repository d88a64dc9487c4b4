"""The CDC extraction network (Sec. 2, A.1, Fig. 2): encoder E1, E2, G1; decoder G2; discriminator D."""

import keras
from keras import layers

from cdc_keras.choices import CONDITIONINGS
from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv, image_input
from cdc_keras.networks.layers import ConditionMaps, ContextNoise, Dropout

# A.1: (kernel, stride) of the groups of E1, then of E2, by (image size, context size). The printed text shows seven
# groups for "six"; one 3/1 is a line-break artefact, and this reading fits the T resolution of all four rows.
GROUPS = {
    (32, 8): (((4, 2), (3, 1), (4, 2), (3, 1)), ((4, 2), (4, 2))),
    (128, 8): (((4, 2), (4, 2), (4, 2), (4, 2)), ((4, 2), (4, 2))),
    (128, 16): (((4, 2), (4, 2), (4, 2), (3, 1)), ((4, 2), (4, 2))),
    (224, 28): (((4, 2), (3, 1), (4, 2), (4, 2)), ((4, 2), (4, 2))),
}
CONTEXT_SIZES = {32: 8, 128: 8, 224: 28}
E1_WIDTHS = (32, 32, 64, 64)  # with these E1 costs the paper's 7.21M MACs
CONTEXT_CHANNELS = 64  # of T, and inside E2 and G1
FIRST_DECODED = "g2_conv1"
MEAN = "context_mean"  # name of the layer that gives T before its noise, where it has noise
EMBEDDED_CONDITION = 10  # A.1: a ten-dimensional conditional vector where there are more than ten categories


def encoder(image_size, *, context_size=None, context_channels=CONTEXT_CHANNELS, skip="add", noise=0.0, name="encoder"):
    """Returns the extractor: images (B, S, S, 3) in [-1, 1] -> T (B, h, h, C).

    Args:
        image_size: 32, 128 or 224 pixels.
        context_size: h, pixels; 8 at 32 px, 8 (default) or 16 at 128 px, 28 at 224 px.
        context_channels: C, of E1's and of G1's output.
        skip: how E1's output joins G1's: "add" or "none". The joined tensor is T, so that the decoder sees
            nothing the discriminator does not.
        noise: standard deviation of the noise in T. Above 0 a 1x1 convolution, the layer `MEAN`, makes C channels of
            64, with values of either sign, and `ContextNoise` follows. 0 is the paper's T, without noise.

    Raises:
        ValueError: for a size that is not a preset of A.1.
    """
    e1, e2 = _groups(image_size, context_size)
    images = image_input(image_size)
    joined = CONTEXT_CHANNELS if noise else context_channels

    x = images
    for i, ((kernel, stride), width) in enumerate(zip(e1, (*E1_WIDTHS[:-1], joined), strict=True), 1):
        x = _group(x, width, kernel, stride, f"e1_conv{i}")
    e1_output = x  # (B, h, h, C)

    for i, (kernel, stride) in enumerate(e2, 1):
        x = _group(x, CONTEXT_CHANNELS, kernel, stride, f"e2_conv{i}")  # (B, h / 4, h / 4, 64)
    for i, (kernel, stride) in enumerate(reversed(e2), 1):
        width = joined if i == len(e2) else CONTEXT_CHANNELS
        x = _group(x, width, kernel, stride, f"g1_conv{i}", transposed=True)  # (B, h, h, C)

    if skip == "add":
        x = layers.Add(name="context")([x, e1_output])
    elif skip != "none":
        raise ValueError(f'skip must be "add" or "none", not {skip!r}')
    if noise:
        x = layers.Conv2D(context_channels, 1, dtype=keras.config.floatx(), name=MEAN)(x)
        x = ContextNoise(noise, dtype=keras.config.floatx(), name="context_noise")(x)
    return keras.Model(images, x, name=name)


def mean_encoder(encoder):
    """Returns the network images -> T without its noise: `encoder` itself where there is none. They share weights."""
    if not any(isinstance(layer, ContextNoise) for layer in encoder.layers):
        return encoder
    return keras.Model(encoder.input, encoder.get_layer(MEAN).output, name=encoder.name)


def decoder(
    image_size,
    context_shape,
    *,
    num_classes,
    context_size=None,
    conditional=True,
    conditioning="planes",
    blocks=0,
    name="decoder",
):
    """Returns G2: [T (B, h, h, C), condition (B, num_classes)] -> x' (B, S, S, 3) in (-1, 1).

    The condition is the one-hot category g(y) (or 1 - g(y), Eq. 2). `FIRST_DECODED` names the layer whose output does
    not depend on it yet, so that several conditions can share it.

    Args:
        image_size, context_size: as for `encoder`.
        context_shape: (h, h, C) of T.
        num_classes: number of categories.
        conditional: False leaves the condition out (the GM of Table 1); the model then takes T alone.
        conditioning: how the condition enters every layer. "planes": as constant channels, by `ConditionMaps`, above
            ten categories embedded in ten values first (A.1). "film": it scales and shifts every channel after its
            batch norm (Perez et al. 2018), the scale starting at 1.
        blocks: residual blocks after the first group (paper: none).
    """
    e1, _ = _groups(image_size, context_size)
    context = keras.Input(context_shape, name="context")
    inputs = [context]
    planes, film = (conditional and conditioning == kind for kind in CONDITIONINGS)
    condition = None
    if conditional:
        condition = keras.Input((num_classes,), name="condition")
        inputs.append(condition)
        if planes and num_classes > EMBEDDED_CONDITION:
            condition = layers.Dense(EMBEDDED_CONDITION, activation="relu", name="condition_dense1")(condition)
            condition = layers.Dense(EMBEDDED_CONDITION, name="condition_dense2")(condition)

    x = context
    widths = (3, *E1_WIDTHS[:-1])
    for i, ((kernel, stride), width) in enumerate(zip(reversed(e1), reversed(widths), strict=True), 1):
        name, transposed, last = f"g2_conv{i}", stride == 2, i == len(e1)
        size, features, values = x.shape[1], x.shape[-1], condition.shape[-1] if planes else 0
        initializer = _initializer(features, values, width, transposed, last)
        x = _conv(x, width, kernel, stride, name, transposed, use_bias=last, initializer=initializer)
        if planes:
            maps = ConditionMaps(
                width,
                kernel,
                strides=stride,
                size=size,
                transposed=transposed,
                kernel_initializer=_initializer(values, features, width, transposed, last),
                name=f"{name}_condition",
            )
            x = layers.Add(name=f"{name}_sum")([x, maps(condition)])
        if not last:
            x = batch_norm(x, f"{name}_bn")
            x = layers.Activation("relu", name=f"{name}_act")(_film(x, condition, name) if film else x)
        if i == 1:
            for block in range(1, blocks + 1):
                x = _residual_block(x, condition if film else None, f"g2_block{block}")
    x = layers.Activation("tanh", dtype=keras.config.floatx(), name="reconstruction")(x)
    return keras.Model(inputs, x, name=name)


def split(decoder):
    """Returns a conditional decoder in two networks: T -> features, which do not depend on the condition, and the rest.

    The rest takes [features, condition]. Both share the decoder's weights.
    """
    context, condition = decoder.inputs
    features = decoder.get_layer(FIRST_DECODED).output
    return keras.Model(context, features), keras.Model([features, condition], decoder.outputs[0])


def _film(x, condition, name):
    """Returns x, (B, H, W, C), scaled and shifted channel by channel as the condition, (B, K), says."""
    channels = x.shape[-1]
    for part, initializer, join in (("scale", "zeros", layers.Multiply), ("shift", HE_NORMAL, layers.Add)):
        values = layers.Dense(channels, use_bias=False, kernel_initializer=initializer, name=f"{name}_{part}")
        values = layers.Reshape((1, 1, channels), name=f"{name}_{part}_map")(values(condition))
        moved = join(name=f"{name}_{part}_by")([x, values])
        x = layers.Add(name=f"{name}_scaled")([x, moved]) if part == "scale" else moved
    return x


def _residual_block(x, condition, name):
    """Returns ReLU(x + F(x)), F two 3/1 convolutions with batch norm, and with `_film` if there is a condition."""
    inside = x
    for i in (1, 2):
        inside = batch_norm(conv(inside, x.shape[-1], 3, f"{name}_conv{i}"), f"{name}_conv{i}_bn")
        inside = inside if condition is None else _film(inside, condition, f"{name}_conv{i}")
        if i == 1:
            inside = layers.Activation("relu", name=f"{name}_act1")(inside)
    return layers.Activation("relu", name=f"{name}_act2")(layers.Add(name=f"{name}_sum")([x, inside]))


def discriminator(context_shape, *, num_classes, width=64, dropout=0.3, members=1, name="discriminator"):
    """Returns D: T (B, h, h, C) -> logits V (B, num_classes) (Eq. 1), or a list of `members` such logits.

    4/2 convolutions down to 1x1, each with BN, LeakyReLU(0.2) and dropout, then Dense(512) and Dense(num_classes).

    Deviation: the paper prints no widths; they start at `width` and double, as in Lample et al. 2017. The paper's D is
    one network; several share nothing but T.
    """
    context = keras.Input(context_shape, name="context")
    logits = [_tower(context, num_classes, width, dropout, prefix) for prefix in prefixes(members)]
    return keras.Model(context, logits if members > 1 else logits[0], name=name)


def prefixes(members):
    """Returns what the names of the layers of each of D's members begin with."""
    return [f"d{i}_" for i in range(1, members + 1)] if members > 1 else ["d_"]


def _tower(context, num_classes, width, dropout, prefix):
    """Returns the logits of one of D's members."""
    x, block = context, 1
    while x.shape[1] > 1:
        x = conv(x, width * 2 ** min(block - 1, 3), 4, f"{prefix}conv{block}", stride=2)
        x = batch_norm(x, f"{prefix}conv{block}_bn")
        x = layers.LeakyReLU(0.2, name=f"{prefix}conv{block}_act")(x)
        x = Dropout(dropout, name=f"{prefix}conv{block}_dropout")(x)
        block += 1
    x = layers.Flatten(name=f"{prefix}flatten")(x)
    x = layers.Dense(512, kernel_initializer=HE_NORMAL, name=f"{prefix}dense1")(x)
    x = layers.LeakyReLU(0.2, name=f"{prefix}dense1_act")(x)
    return layers.Dense(num_classes, dtype=keras.config.floatx(), name=f"{prefix}logits")(x)


def _groups(image_size, context_size):
    """Returns the groups of E1 and E2 for a preset of A.1."""
    context_size = context_size or CONTEXT_SIZES.get(image_size)
    if (image_size, context_size) not in GROUPS:
        presets = ", ".join(f"{image} px with T at {context}x{context}" for image, context in GROUPS)
        raise ValueError(
            f"the extraction network has presets for {presets}; got {image_size} px with T at {context_size}. "
            "Choose image_size and context_size from these."
        )
    return GROUPS[image_size, context_size]


def _group(x, filters, kernel, stride, name, transposed=False):
    """Returns C(kernel, stride, 1) of x: (transposed) convolution, BN, ReLU."""
    x = _conv(x, filters, kernel, stride, name, transposed)
    return layers.Activation("relu", name=f"{name}_act")(batch_norm(x, f"{name}_bn"))


def _conv(x, filters, kernel, stride, name, transposed, use_bias=False, initializer=HE_NORMAL):
    """Returns a convolution of x, or a transposed one to `stride` times the size: "same" is padding 1 at 4/2."""
    if not transposed:
        return conv(x, filters, kernel, name, stride, use_bias, initializer)
    return layers.Conv2DTranspose(
        filters, kernel, stride, "same", use_bias=use_bias, kernel_initializer=initializer, name=name
    )(x)


def _initializer(channels, others, filters, transposed, last):
    """Returns the initializer of a kernel for `channels` of a convolution's input channels, `others` being the rest."""
    if last:  # no BN here to undo the scale: with He's, counted over the 3 output channels, tanh would start saturated
        share = (channels + filters) / (channels + others + filters)
        return keras.initializers.VarianceScaling(share, "fan_avg", "uniform")
    if transposed:
        return HE_NORMAL  # which Keras counts over the filters
    return keras.initializers.VarianceScaling(2 * channels / (channels + others), "fan_in", "truncated_normal")
