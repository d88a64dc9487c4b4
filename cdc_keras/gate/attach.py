"""The gate (Sec. 3, Eqs. 3-5): attention inferred from the context, spliced into any functional classifier."""

from collections.abc import Iterable

import keras
from keras import layers

from cdc_keras.choices import COMPATIBILITIES, GATE_INITS
from cdc_keras.gate.context_input import image_source, to_unit_range
from cdc_keras.gate.parts import ATTENTION, EMBEDDED, EXTRACTOR, L1, L2, POOL, SHUFFLED, of_site
from cdc_keras.gate.sites import Site, checked, context_shape, default_sites, has_activation, ranked, traced
from cdc_keras.networks import graph
from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv
from cdc_keras.networks.layers import ChannelCompatibility, ChannelPool, FrozenExtractor, ShuffledContext, UnitSigmoid

HIDDEN = 4  # channels inside L1 and L2; with these they hold 504 weights and the gate the paper's 0.034M
BIAS = 3.0  # where on its sigmoid M starts, sigmoid(3) = 0.95, with "neutral" and "identity"
SMALL = 32  # pixels up to which R and L3 reduce by 2, and by 4 above (A.1)


def attach(
    model: keras.Model,
    extractor: keras.Model | None,
    sites: Iterable[str | Site] | str | None = None,
    *,
    copy: bool = False,
    reduction: int | None = None,
    init: str = "identity",
    residual: bool = True,
    attention: bool = True,
    compatibility: str = "mean",
    after_relu: bool = False,
    to_context_input: keras.layers.Layer | None = None,
    shuffle_context: bool = False,
) -> keras.Model:
    """Returns `model` gated by the context: the same inputs and outputs, and at first the same answers.

    The gated model shares the layers of `model`: training it trains `model` along, unless `copy` is True. The extractor
    runs once per image on the same input, copied and frozen (`layers.FrozenExtractor`). A model inside `model`, such as
    a backbone under a new head, is replaced by its layers, which are gated where they stand. The gate adds no
    activation: the ReLU of ReLU(R(F) + F') (Eq. 5) is the network's own, behind the site; where a layer at a site has
    its activation fused in, as VGG of keras.applications has, it is split, and its weights are copied.

    Args:
        model: functional or Sequential classifier with one image input (B, S, S, 3) in [-1, 1], or in the range of the
            `Rescaling` or `Normalization` that it begins with. Any number of outputs.
        extractor: functional model, images (B, S, S, 3) in [-1, 1] -> T (B, h, w, C), as `networks.autoencoder.encoder`
            builds it. None if `attention` is False. `cdc_keras.attach` also takes the place of a trained one:
            "zoo:cifar100", or the path of a run.
        sites: the layers, by name or as a `Site`, whose outputs F (B, H, W, C), before activation, are gated; H a
            multiple of h or h of H. By default the ends of the groups at twice and once T's resolution (A.1), the first
            that `usable_sites` returns.
        copy: True leaves `model` as it is and gates a copy of it with copied weights.
        reduction: r, by which R and L3 reduce the channels; 2 up to 32 px and 4 above (A.1) by default.
        init: one of `choices.GATE_INITS`. All but "he" (He everywhere) start with R = 0 and C = 2 sigmoid(0) = 1, and
            differ in M. "identity": M = sigmoid(z + 3) / sigmoid(3), exactly 1 at z = 0, where it starts, and at most
            1.05. "neutral": M = sigmoid(3), 0.95. "centred": M = 2 sigmoid(0) = 1, at most 2.
            Deviation: the paper gives no initialisation. Started at random, M times C is about a quarter, and a short
            run spends its epochs undoing that (docs/gate.md). From there C can reach 2 and so amplify, M of "identity"
            by 5%, where the paper's end at 1. A sigmoid's slope is 0.25 in its middle and 0.05 at 3.
        residual: False leaves R out ("w/o RU" of Table 2).
        attention: False leaves M and C out ("+ RU": output R(F) + F).
        compatibility: how C adds up its products over the positions: "mean", which keeps the sigmoid from saturating
            (`layers.ChannelCompatibility`), "sum" (Eq. 4), or "none", which leaves C out ("w/o CC").
        after_relu: gate the ReLU that follows each site instead ("after ReLU" of Table 2); what the gate gives then
            goes through a ReLU again, since all that follows expects no negative features.
        to_context_input: layer that maps what `model` takes to [-1, 1] for the extractor (A.1); found out by default.
        shuffle_context: True infers the gate from the T of another image (`layers.ShuffledContext`), a control.

    Returns:
        A functional model, to be compiled, trained, saved and exported as any other.

    Raises:
        ValueError: naming the usable sites, for a site that is unknown, not spatial, or at a resolution that cannot be
            reached from T; for an extractor of another image size; for a model whose range of pixels is unclear.
        TypeError: `model` is neither functional nor Sequential.

    Example:
        Layers are shared: what trains the gated network trains the plain one, too, but for `copy=True`.

        >>> import keras
        >>> from cdc_keras.networks import autoencoder, registry
        >>> plain, extractor = registry.build("resnet8", 32, num_classes=10), autoencoder.encoder(32)
        >>> gated = attach(plain, extractor, copy=True)
        >>> images = keras.random.uniform((2, 32, 32, 3), -1, 1)
        >>> bool(keras.ops.all(gated(images) == plain(images)))
        True
    """
    if init not in GATE_INITS:
        raise ValueError(f"init is one of {', '.join(GATE_INITS)}, not {init!r}")
    if compatibility not in COMPATIBILITIES:
        raise ValueError(f"compatibility is one of {', '.join(COMPATIBILITIES)}, not {compatibility!r}")
    if not (residual or attention):
        raise ValueError("a gate without residual and without attention does nothing; leave one of them on")
    if attention and extractor is None:
        raise ValueError("attention is inferred from the context: give an extractor, or attention=False")
    if copy:
        model = _copied(model)
    model, calls = traced(model)
    images, source = image_source(model, calls)
    shape = context_shape(images.shape, extractor) if attention else None
    sites = _checked_sites(sites, model, calls, shape, after_relu)
    if reduction is None:
        if images.shape[1] is None:
            raise ValueError("this model takes images of any size, so reduction has no default; give it")
        reduction = 2 if images.shape[1] <= SMALL else 4
    if attention and to_context_input is None:
        to_context_input = to_unit_range(model, calls)

    inputs = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name)
    maps = _AttentionMaps(extractor, to_context_input, shuffle_context, init) if attention else None
    if attention and source is None:
        maps.infer(inputs)

    def call(layer, *args, **kwargs):
        if layer.name not in sites:
            features = layer(*args, **kwargs)
            if attention and layer is source:
                maps.infer(features)
            return features
        fused = has_activation(layer) and not after_relu
        features = _without_activation(layer, *args, **kwargs) if fused else layer(*args, **kwargs)
        features = _gate(
            features,
            maps,
            layer.name,
            reduction=reduction,
            init=init,
            residual=residual,
            compatibility=compatibility,
            activation="relu" if after_relu else "linear",
        )
        return (
            layers.Activation(layer.activation, name=of_site(layer.name, "activation"))(features) if fused else features
        )

    return graph.rebuild(model, call, inputs=inputs)


def _checked_sites(sites, model, calls, shape, after_relu):
    """Returns the names of the layers to splice after."""
    if sites is None:
        if shape is None:
            raise ValueError("without a context there is no resolution to choose sites by; name them")
        sites = default_sites(model, calls, shape)
    sites = [sites] if isinstance(sites, str | Site) else list(sites)
    if not sites:
        best = ", ".join(site.name for site in ranked(model, calls, shape)[:8])
        raise ValueError(f"name at least one site; usable are, best first: {best}")
    names = [site.name if isinstance(site, Site) else site for site in sites]
    return [checked(name, model, calls, shape, after_relu) for name in names]


def _copied(model):
    """Returns a copy of a model with copied weights."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _without_activation(layer, *args, **kwargs):
    """Returns what a layer gives before the activation that is fused into it, by a layer of the same name and weights."""
    bare = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    features = bare(*args, **kwargs)
    bare.set_weights(layer.get_weights())
    return features


class _AttentionMaps:
    """M and Me, computed once from T and brought to the resolution of each site (Sec. 3, "Multi-layer Extension").

    Args:
        extractor, to_context_input, shuffle_context, init: as for `attach`.
    """

    def __init__(self, extractor, to_context_input, shuffle_context, init):
        self.extractor, self.to_context_input, self.init = extractor, to_context_input, init
        self.shuffle_context = shuffle_context

    def infer(self, images):
        """Computes both from images, (B, S, S, 3)."""
        images = images if self.to_context_input is None else self.to_context_input(images)
        context = FrozenExtractor(self.extractor, name=EXTRACTOR)(images)
        if self.shuffle_context:
            context = ShuffledContext(name=SHUFFLED)(context)
        self.shape = context.shape[1:3]
        pooled = ChannelPool(name=POOL)(context)  # (B, h, w, 2)
        self.maps = {self.shape: (self._attention(pooled), self._embedded(pooled))}

    def _attention(self, pooled):
        """Returns M, (B, h, w, 1)."""
        x = conv(_conv_bn_relu(pooled, f"{L1}_conv1"), 1, 3, f"{L1}_conv2")
        if self.init == "he":
            x = batch_norm(x, f"{L1}_conv2_bn")
        else:
            # gamma 0: M starts as one number, in training and in inference alike, and grows structure from there
            beta = keras.initializers.Constant(BIAS if self.init == "neutral" else 0.0)
            x = batch_norm(x, f"{L1}_conv2_bn", gamma_initializer="zeros", beta_initializer=beta)
        if self.init == "identity":
            return UnitSigmoid(BIAS, name=ATTENTION)(x)
        if self.init == "centred":
            return layers.Rescaling(2.0, name=ATTENTION)(layers.Activation("sigmoid", name=f"{L1}_sigmoid")(x))
        return layers.Activation("sigmoid", name=ATTENTION)(x)

    def _embedded(self, pooled):
        """Returns Me, (B, h, w, 1)."""
        x = pooled
        for i in (1, 2, 3):
            x = _conv_bn_relu(x, f"{L2}_conv{i}")
        return conv(x, 1, 3, f"{L2}_conv4")

    def at(self, shape):
        """Returns (M, Me) at `shape`: up-sampled to the nearest, or average-pooled."""
        if shape not in self.maps:
            (h, w), (height, width) = self.shape, shape
            names = [f"{name}_{height}x{width}" for name in (ATTENTION, EMBEDDED)]
            if height > h:
                resized = [layers.UpSampling2D((height // h, width // w), name=name) for name in names]
            else:
                resized = [layers.AveragePooling2D((h // height, w // width), name=name) for name in names]
            self.maps[shape] = tuple(layer(x) for layer, x in zip(resized, self.maps[self.shape], strict=True))
        return self.maps[shape]


def _gate(features, maps, site, *, reduction, init, residual, compatibility, activation):
    """Returns R(F) + F' with F' = F * M * C (Eq. 5), or what an ablation leaves of it, and `activation` of that."""
    x = features
    if maps is not None:
        attention, embedded_context = maps.at(features.shape[1:3])
        x = layers.Multiply(name=of_site(site, "attended"))([x, attention])
        if compatibility != "none":
            embedded_features = _bottleneck(features, of_site(site, "l3"), reduction, init)
            scale = 1.0 if init == "he" else 2.0
            layer = ChannelCompatibility(compatibility, scale, name=of_site(site, "compatibility"))
            weights = layer([embedded_context, embedded_features])
            x = layers.Multiply(name=of_site(site, "suppressed"))([x, weights])
    if residual:
        x = layers.Add(name=of_site(site, "sum"))([_bottleneck(features, of_site(site, "r"), reduction, init), x])
    return layers.Activation(activation, name=of_site(site, "out"))(x)


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
