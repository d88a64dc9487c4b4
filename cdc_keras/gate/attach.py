"""The gate (Sec. 3, Eqs. 3-5): attention inferred from the context, spliced into any functional classifier."""

import keras
from keras import layers, ops

from cdc_keras.choices import GATE_INITS
from cdc_keras.gate.parts import ATTENTION, EXTRACTOR
from cdc_keras.networks import graph
from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv
from cdc_keras.networks.layers import ChannelCompatibility, ChannelPool, FrozenExtractor, ShuffledContext

HIDDEN = 4  # channels inside L1 and L2; with these they hold 504 weights and the gate the paper's 0.034M
NEUTRAL_BIAS = 3.0  # M starts at sigmoid(3) = 0.95
RELU_OPERATION = type(ops.relu(keras.KerasTensor((1,)))._keras_history.operation)


def attach(
    model,
    extractor,
    sites,
    *,
    reduction=None,
    init="neutral",
    residual=True,
    attention=True,
    compatibility="mean",
    after_relu=False,
    final_relu=True,
    to_context_input=None,
    shuffle_context=False,
):
    """Returns `model` gated by the context: the same inputs and outputs, and the same layers with the same weights.

    The layers of `model` are shared, not copied: build a second one if the plain network is to be trained too. The
    extractor runs once per image on the same input, frozen (see `layers.FrozenExtractor`).

    Args:
        model: functional classifier with one image input (B, S, S, 3).
        extractor: functional model, images (B, S, S, 3) in [-1, 1] -> T (B, h, w, C), as `networks.autoencoder.encoder`
            builds it. May be None if `attention` is False.
        sites: names of the layers whose outputs F (B, H, W, C), before activation, are gated; H a multiple of h or h of
            H. `networks.sites` names them for our networks, `usable_sites` for any model.
        reduction: r, by which R and L3 reduce the channels; 2 up to 32 px and 4 above (A.1) by default.
        init: so that the gate starts as the identity, the last convolutions of R and L3 zero and C = 2 sigmoid(0) = 1:
            "neutral", with M = sigmoid(3), near 1, or "centred", with M = 2 sigmoid(0); or "he", He everywhere.
            Deviation: the paper gives no initialisation. Started at random, M times C is about a quarter, and a short
            run spends its epochs undoing that (docs/results/cifar100_short). From there C, and with "centred" M, can
            reach 2 and so amplify, where the paper's end at 1. A sigmoid's slope is 0.25 in its middle and 0.05 at 3.
        residual: False leaves R out ("w/o RU" of Table 2).
        attention: False leaves M and C out ("+ RU": output R(F) + F).
        compatibility: how C adds up its products over the positions: "mean", which keeps the sigmoid from saturating
            (`layers.ChannelCompatibility`), "sum" (Eq. 4), or "none", which leaves C out ("w/o CC").
        after_relu: gate the ReLU that follows each site instead ("after ReLU").
        final_relu: apply the ReLU of ReLU(R(F) + F'). Where the network itself applies one right after the site, it
            stays the only one.
        to_context_input: layer that maps the model's input to [-1, 1] for the extractor, say a `keras.layers.Rescaling`
            where a backbone takes other ranges (A.1).
        shuffle_context: True infers the gate from the T of another image (`layers.ShuffledContext`), a control.

    Raises:
        ValueError: naming the usable sites, for a site that is unknown, not spatial, or at a resolution that can not be
            reached from T; or for an extractor of another image size.
        TypeError: if `model` is not functional.
    """
    if init not in GATE_INITS:
        raise ValueError(f"init is one of {', '.join(GATE_INITS)}, not {init!r}")
    if compatibility not in ("sum", "mean", "none"):
        raise ValueError(f'compatibility must be "mean", "sum" or "none", not {compatibility!r}')
    if not (residual or attention):
        raise ValueError("a gate without residual and without attention does nothing; leave one of them on")
    sites = [sites] if isinstance(sites, str) else list(sites)
    if attention and extractor is None:
        raise ValueError("attention is inferred from the context: give an extractor, or attention=False")
    traced, calls = graph.trace(model)
    if len(traced.inputs) != 1:
        raise ValueError(f"a gate needs a model with one image input; this one has {len(traced.inputs)}")
    if any(isinstance(layer, FrozenExtractor) for layer in traced.layers):
        raise ValueError("this model is gated already; build a new one and name all sites in one call")
    context_shape = _context_shape(traced, extractor) if attention else None
    sites = [_check_site(name, calls, context_shape, after_relu) for name in sites]
    if not sites:
        raise ValueError(f"name at least one site; usable are: {', '.join(_usable(calls, context_shape))}")
    if reduction is None:
        if traced.inputs[0].shape[1] is None:
            raise ValueError("this model takes images of any size, so reduction has no default; give it")
        reduction = 2 if traced.inputs[0].shape[1] <= 32 else 4

    images = keras.Input(batch_shape=traced.inputs[0].shape, dtype=traced.inputs[0].dtype, name=traced.inputs[0].name)
    maps = None
    if attention:
        context_input = images if to_context_input is None else to_context_input(images)
        context = FrozenExtractor(extractor, name=EXTRACTOR)(context_input)
        if shuffle_context:
            context = ShuffledContext(name="gate_shuffled_context")(context)
        maps = _AttentionMaps(context, init)
    relu_follows = _followed_by_relu(calls)

    def call(layer, *args, **kwargs):
        features = layer(*args, **kwargs)
        if layer.name in sites:
            features = _gate(
                features,
                maps,
                f"gate_{layer.name}",
                reduction=reduction,
                init=init,
                residual=residual,
                compatibility=compatibility,
                relu=final_relu and layer.name not in relu_follows,
            )
        return features

    return graph.rebuild(model, call, inputs=images)


def usable_sites(model, extractor):
    """Returns the names of the layers of `model` that `attach` can gate with this extractor."""
    return _usable(graph.trace(model)[1], _context_shape(model, extractor))


class _AttentionMaps:
    """M and Me, computed once from T and brought to the resolution of each site (Sec. 3, "Multi-layer Extension")."""

    def __init__(self, context, init):
        pooled = ChannelPool(name="gate_context_pool")(context)  # (B, h, w, 2)
        x = _conv_bn_relu(pooled, "gate_l1_conv1")
        x = conv(x, 1, 3, "gate_l1_conv2")
        if init == "he":
            x = batch_norm(x, "gate_l1_conv2_bn")
        else:
            # gamma 0: M starts as one number, in training and in inference alike, and grows structure from there
            beta = keras.initializers.Constant(NEUTRAL_BIAS if init == "neutral" else 0.0)
            x = batch_norm(x, "gate_l1_conv2_bn", gamma_initializer="zeros", beta_initializer=beta)
        if init == "centred":
            x = layers.Activation("sigmoid", name="gate_l1_sigmoid")(x)
            attention = layers.Rescaling(2.0, name=ATTENTION)(x)  # M, (B, h, w, 1)
        else:
            attention = layers.Activation("sigmoid", name=ATTENTION)(x)  # M, (B, h, w, 1)

        x = pooled
        for i in (1, 2, 3):
            x = _conv_bn_relu(x, f"gate_l2_conv{i}")
        embedded = conv(x, 1, 3, "gate_l2_conv4")  # Me, (B, h, w, 1)
        self.maps = {context.shape[1:3]: (attention, embedded)}
        self.shape = context.shape[1:3]

    def at(self, shape):
        """Returns (M, Me) at `shape`: up-sampled to the nearest, or average-pooled."""
        if shape not in self.maps:
            (h, w), (height, width) = self.shape, shape
            suffix = f"{height}x{width}"
            if height > h:
                resize = lambda name: layers.UpSampling2D((height // h, width // w), name=f"{name}_{suffix}")  # noqa: E731
            else:
                resize = lambda name: layers.AveragePooling2D((h // height, w // width), name=f"{name}_{suffix}")  # noqa: E731
            attention, embedded = self.maps[self.shape]
            self.maps[shape] = (resize(ATTENTION)(attention), resize("gate_embedded_context")(embedded))
        return self.maps[shape]


def _gate(features, maps, name, *, reduction, init, residual, compatibility, relu):
    """Returns ReLU(R(F) + F') with F' = F * M * C (Eq. 5), or what an ablation leaves of it."""
    x = features
    if maps is not None:
        attention, embedded_context = maps.at(features.shape[1:3])
        x = layers.Multiply(name=f"{name}_attended")([x, attention])
        if compatibility != "none":
            embedded_features = _bottleneck(features, f"{name}_l3", reduction, init)
            scale = 1.0 if init == "he" else 2.0
            layer = ChannelCompatibility(compatibility, scale, name=f"{name}_compatibility")
            weights = layer([embedded_context, embedded_features])
            x = layers.Multiply(name=f"{name}_suppressed")([x, weights])
    if residual:
        x = layers.Add(name=f"{name}_sum")([_bottleneck(features, f"{name}_r", reduction, init), x])
    return layers.Activation("relu" if relu else "linear", name=f"{name}_out")(x)


def _bottleneck(x, name, reduction, init):
    """Returns BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1 of x, the structure of R and of L3 (A.1)."""
    channels = x.shape[-1]
    inner = max(channels // reduction, 1)
    for i, (filters, kernel) in enumerate(((inner, 1), (inner, 3), (channels, 1)), 1):
        x = layers.Activation("relu", name=f"{name}_conv{i}_act")(batch_norm(x, f"{name}_conv{i}_bn"))
        initializer = "zeros" if init != "he" and i == 3 else HE_NORMAL
        x = conv(x, filters, kernel, f"{name}_conv{i}", initializer=initializer)
    return x


def _conv_bn_relu(x, name):
    x = batch_norm(conv(x, HIDDEN, 3, name), f"{name}_bn")
    return layers.Activation("relu", name=f"{name}_act")(x)


def _context_shape(model, extractor):
    """Returns the (h, w) of T, having checked that the extractor takes the images the model takes."""
    expected, got = tuple(extractor.inputs[0].shape[1:3]), tuple(model.inputs[0].shape[1:3])
    if expected != got:
        raise ValueError(
            f"the extractor takes images of {expected[0]}x{expected[1]} px, the model {got[0]}x{got[1]} px; "
            "build both for one size"
        )
    return tuple(extractor.outputs[0].shape[1:3])


def _reachable(shape, context_shape):
    """Whether M can be up-sampled or pooled by a whole factor to the (B, H, W, C) `shape`."""
    if shape is None or len(shape) != 4 or None in shape[1:]:
        return False
    if context_shape is None:
        return True
    (h, w), (height, width) = context_shape, shape[1:3]
    up = height % h == 0 and width % w == 0 and height // h == width // w
    down = h % height == 0 and w % width == 0 and h // height == w // width
    return up or down


def _usable(calls, context_shape):
    return [
        layer.name
        for layer, _, output in calls
        if not isinstance(layer, layers.ZeroPadding2D) and _reachable(getattr(output, "shape", None), context_shape)
    ]


def _check_site(name, calls, context_shape, after_relu):
    """Returns the name of the layer to splice after, having checked that a gate fits there."""
    outputs = {layer.name: output for layer, _, output in calls}
    hint = f"usable sites: {', '.join(_usable(calls, context_shape))}"
    if name not in outputs:
        raise ValueError(f"the model has no layer {name!r}; {hint}")
    if sum(layer.name == name for layer, _, _ in calls) > 1:
        raise ValueError(f"layer {name!r} is applied more than once, so a gate after it is ambiguous; {hint}")
    shape = getattr(outputs[name], "shape", None)
    if shape is None or len(shape) != 4:
        raise ValueError(f"layer {name!r} gives {shape}, not a feature map (B, H, W, C); {hint}")
    if not _reachable(shape, context_shape):
        raise ValueError(
            f"layer {name!r} works at {shape[1]}x{shape[2]}, which is no whole multiple or fraction of the context's "
            f"{context_shape[0]}x{context_shape[1]}; {hint}"
        )
    if after_relu:
        followers = [layer.name for layer, inputs, _ in calls if _is_relu(layer) and inputs[0] is outputs[name]]
        if not followers:
            raise ValueError(f"no ReLU follows layer {name!r}, so it can not be gated after ReLU; {hint}")
        return _check_site(followers[0], calls, context_shape, after_relu=False)
    return name


def _followed_by_relu(calls):
    """Returns the names of the layers whose output goes into a ReLU and nowhere else."""
    consumers = {}
    for layer, inputs, _ in calls:
        for tensor in inputs:
            consumers.setdefault(id(tensor), []).append(layer)
    return {
        layer.name
        for layer, _, output in calls
        if consumers.get(id(output)) and all(_is_relu(consumer) for consumer in consumers[id(output)])
    }


def _is_relu(layer):
    if isinstance(layer, RELU_OPERATION):  # a plain keras.ops.relu in a functional graph
        return True
    if isinstance(layer, layers.ReLU):
        return not layer.negative_slope
    return isinstance(layer, layers.Activation) and layer.activation in (keras.activations.relu, ops.relu)
