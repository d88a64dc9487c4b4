"""The gate (Sec. 3, Eqs. 3-5): attention inferred from the context, spliced into any functional classifier."""

import dataclasses
from collections.abc import Iterable

import keras
from keras import layers

from cdc_keras.choices import COMPATIBILITIES, GATE_INITS
from cdc_keras.gate.context_input import image_source, to_unit_range
from cdc_keras.gate.parts import ATTENTION, EMBEDDED, EXTRACTOR, L1, L2, POOL, SHUFFLED, SPREAD, of_site
from cdc_keras.gate.sites import Site, chosen, context_shape, has_activation, traced
from cdc_keras.networks import autoencoder, graph
from cdc_keras.networks.common import HE_NORMAL, batch_norm, conv
from cdc_keras.networks.layers import ChannelCompatibility, ChannelPool, FrozenExtractor, ShuffledContext, UnitSigmoid
from cdc_keras.networks.spread import RelativeSpread

HIDDEN = 4  # channels inside L1 and L2; with these they hold 504 weights and the gate the paper's 0.034M
BIAS = 3.0  # where on its sigmoid M starts, sigmoid(3) = 0.95, with "neutral" and "identity"
LEAST = 0.2  # of M where V is 0, with "spread"
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
            builds it, or -> [T, V], as `networks.spread.spread_extractor` does. With V, P is [mean; max; V]. Noise in T
            is left out, so that the same image has the same M. None if `attention` is False. `cdc_keras.attach` also
            takes the place of a trained one: "zoo:cifar100", or the path of a run.
        sites: the layers, by name or as a `Site`, whose outputs F (B, H, W, C), before activation, are gated; H a
            multiple of h or h of H. By default the ends of the groups at twice and once T's resolution (A.1), the first
            that `usable_sites` returns.
        copy: True leaves `model` as it is and gates a copy of it with copied weights.
        reduction: r, by which R and L3 reduce the channels; 2 up to 32 px and 4 above (A.1) by default.
        init: one of `choices.GATE_INITS`. All but "he" (He everywhere) start with R = 0 and C = 2 sigmoid(0) = 1, and
            differ in M. "identity": M = sigmoid(z + 3) / sigmoid(3), exactly 1 at z = 0, where it starts, and at most
            1.05. "neutral": M = sigmoid(3), 0.95. "centred": M = 2 sigmoid(0) = 1, at most 2. "spread": M = V over
            twice its mean, scaled to [0.2, 1], times the M of "centred"; the extractor has to give V.
            Deviation: the paper gives no initialisation. Started at random, M times C is about a quarter, and a short
            run spends its epochs undoing that (docs/method.md). From there C can reach 2 and so amplify, M of
            "identity" by 5%, where the paper's end at 1. A sigmoid's slope is 0.25 in its middle and 0.05 at 3.
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

    Examples:
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
    if attention and init == "spread" and len(extractor.outputs) < 2:
        raise ValueError("init='spread' starts M from V, which this extractor does not give; see networks.spread")
    if copy:
        weights, model = model.get_weights(), keras.models.clone_model(model)
        model.set_weights(weights)
    model, calls = traced(model)
    images, source = image_source(model, calls)
    shape = context_shape(images.shape, extractor) if attention else None
    sites = chosen(sites, model, calls, shape, after_relu)
    if reduction is None:
        if images.shape[1] is None:
            raise ValueError("this model takes images of any size, so reduction has no default; give it")
        reduction = 2 if images.shape[1] <= SMALL else 4
    if attention and to_context_input is None:
        to_context_input = to_unit_range(images, calls)
    gate = _Gate(reduction, init, residual, compatibility, "relu" if after_relu else "linear")

    def infer(images):
        images = images if to_context_input is None else to_context_input(images)
        given = FrozenExtractor(autoencoder.mean_encoder(extractor), name=EXTRACTOR)(images)
        if shuffle_context:
            given = ShuffledContext(name=SHUFFLED)(given)
        gate.infer(*given) if isinstance(given, list) else gate.infer(given)

    def call(layer, *args, **kwargs):
        if layer.name in sites and has_activation(layer) and not after_relu:
            features = gate(_without_activation(layer, *args, **kwargs), layer.name)
            return layers.Activation(layer.activation, name=of_site(layer.name, "activation"))(features)
        features = layer(*args, **kwargs)
        if attention and layer is source:
            infer(features)
        return gate(features, layer.name) if layer.name in sites else features

    inputs = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name)
    if attention and source is None:
        infer(inputs)
    return graph.rebuild(model, call, inputs=inputs)


def _without_activation(layer, *args, **kwargs):
    """Returns what a layer gives before the activation fused into it, by a layer of the same name and weights."""
    bare = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    features = bare(*args, **kwargs)
    bare.set_weights(layer.get_weights())
    return features


@dataclasses.dataclass
class _Gate:
    """The gates of one model, which share M and Me (Sec. 3, "Multi-layer Extension"); call it at each site.

    Attributes:
        reduction, init, residual, compatibility: as for `attach`.
        activation: of what it gives.
        maps: {(H, W): (M, Me) at this resolution}, T's own first; empty without context.
    """

    reduction: int
    init: str
    residual: bool
    compatibility: str
    activation: str
    maps: dict = dataclasses.field(default_factory=dict)

    def infer(self, context, spread=None):
        """Computes M and Me from T, (B, h, w, C), and V, (B, h, w, 1), if it is given."""
        pooled = ChannelPool(name=POOL)(context)  # (B, h, w, 2)
        if spread is not None:
            spread = RelativeSpread(name=SPREAD)(spread)
            pooled = layers.Concatenate(name=f"{POOL}_with_spread")([pooled, spread])  # (B, h, w, 3)
        attention = self._attention(pooled, ATTENTION if self.init != "spread" else f"{ATTENTION}_over_spread")
        if self.init == "spread":
            least = layers.Rescaling(1 - LEAST, LEAST, name=f"{SPREAD}_start")(spread)
            attention = layers.Multiply(name=ATTENTION)([least, attention])
        self.maps[context.shape[1:3]] = attention, self._embedded(pooled)

    def _attention(self, pooled, name):
        """Returns M, (B, h, w, 1)."""
        x = conv(_conv_bn_relu(pooled, f"{L1}_conv1"), 1, 3, f"{L1}_conv2")
        start = {}
        if self.init != "he":
            # gamma 0: M starts as one number, in training and in inference alike, and grows structure from there
            beta = keras.initializers.Constant(BIAS if self.init == "neutral" else 0.0)
            start = {"gamma_initializer": "zeros", "beta_initializer": beta}
        x = batch_norm(x, f"{L1}_conv2_bn", **start)
        if self.init in ("neutral", "he"):
            return layers.Activation("sigmoid", name=name)(x)
        return UnitSigmoid(BIAS if self.init == "identity" else 0.0, name=name)(x)

    def _embedded(self, pooled):
        """Returns Me, (B, h, w, 1)."""
        x = pooled
        for i in (1, 2, 3):
            x = _conv_bn_relu(x, f"{L2}_conv{i}")
        return conv(x, 1, 3, f"{L2}_conv4")

    def _at(self, shape):
        """Returns (M, Me) at `shape`: up-sampled to the nearest, or average-pooled."""
        if shape not in self.maps:
            (h, w), (height, width) = next(iter(self.maps)), shape
            up = height > h
            factor = (height // h, width // w) if up else (h // height, w // width)
            resize = layers.UpSampling2D if up else layers.AveragePooling2D
            self.maps[shape] = tuple(
                resize(factor, name=f"{name}_{height}x{width}")(x)
                for name, x in zip((ATTENTION, EMBEDDED), self.maps[h, w], strict=True)
            )
        return self.maps[shape]

    def __call__(self, features, site):
        """Returns R(F) + F' with F' = F * M * C (Eq. 5), or what an ablation leaves of it, activated."""
        x = features
        if self.maps:
            attention, embedded_context = self._at(features.shape[1:3])
            x = layers.Multiply(name=of_site(site, "attended"))([x, attention])
            if self.compatibility != "none":
                embedded_features = self._bottleneck(features, of_site(site, "l3"))
                scale = 1.0 if self.init == "he" else 2.0
                layer = ChannelCompatibility(self.compatibility, scale, name=of_site(site, "compatibility"))
                weights = layer([embedded_context, embedded_features])
                x = layers.Multiply(name=of_site(site, "suppressed"))([x, weights])
        if self.residual:
            x = layers.Add(name=of_site(site, "sum"))([self._bottleneck(features, of_site(site, "r")), x])
        return layers.Activation(self.activation, name=of_site(site, "out"))(x)

    def _bottleneck(self, x, name):
        """Returns BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1 of x, the structure of R and of L3 (A.1)."""
        channels = x.shape[-1]
        inner = max(channels // self.reduction, 1)
        for i, (filters, kernel) in enumerate(((inner, 1), (inner, 3), (channels, 1)), 1):
            x = layers.Activation("relu", name=f"{name}_conv{i}_act")(batch_norm(x, f"{name}_conv{i}_bn"))
            initializer = "zeros" if self.init != "he" and i == 3 else HE_NORMAL
            x = conv(x, filters, kernel, f"{name}_conv{i}", initializer=initializer)
        return x


def _conv_bn_relu(x, name):
    x = batch_norm(conv(x, HIDDEN, 3, name), f"{name}_bn")
    return layers.Activation("relu", name=f"{name}_act")(x)
