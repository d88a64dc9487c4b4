"""Where a gate can stand in a classifier, which places are best, and the one sentence about those where it cannot."""

import collections
from typing import NamedTuple

import keras
from keras import layers, ops

from cdc_keras.gate.context_input import SIZING, augments, image_source
from cdc_keras.gate.parts import parts
from cdc_keras.networks import graph
from cdc_keras.networks.layers import FrozenExtractor

RELU_OPERATION = type(ops.relu(keras.KerasTensor((1,)))._keras_history.operation)
RELUS = (keras.activations.relu, ops.relu)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
# What gives no features of its own; a gate stands before it.
PASSING = (*ACTIVATIONS, layers.ZeroPadding2D, layers.Cropping2D, layers.Dropout, layers.SpatialDropout2D)
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2DTranspose)
PREPROCESSING = (layers.Rescaling, layers.Normalization, *SIZING)
NAMED = 8  # sites in an error message


class Site(NamedTuple):
    """A layer that `attach` can gate.

    Attributes:
        name: of the layer.
        height, width: of its output F, positions; None for a model of images of any size.
        channels: of F.
        ends_group: whether F is the last at this resolution that all later layers build upon, before its activation:
            where the paper gates (Sec. 3).
    """

    name: str
    height: int | None
    width: int | None
    channels: int
    ends_group: bool


def usable_sites(model: keras.Model, extractor: keras.Model) -> list[Site]:
    """Returns where `attach` can gate `model`, best first.

    First come the ends of groups: those at twice and once T's resolution, which are the default sites, then those at
    others; then all other layers in the order of the model. Left out are activations, padding and dropout, whose input
    is the better site, convolutions before a batch norm, which is the better site, operations without a layer, maps of
    a single position, and layers that are applied twice. Convolutions can be gated by name, too; but compiled with
    oneDNN, where TensorFlow computes them together with their batch norm, the gate's start then differs by rounding.

    Args:
        model: functional or Sequential classifier of images (B, S, S, 3), which may contain others.
        extractor: functional model, images (B, S, S, 3) in [-1, 1] -> T (B, h, w, C).

    Returns:
        A list of `Site`s; empty if no layer's height and width are those of T times or by a whole number.

    Raises:
        ValueError: the two take images of different sizes.
        TypeError: `model` is neither functional nor Sequential.

    Examples:
        >>> from cdc_keras.networks import autoencoder, registry
        >>> sites = usable_sites(registry.build("resnet8", 32, num_classes=10), autoencoder.encoder(32))
        >>> sites[0]
        Site(name='stage2_block1_add', height=16, width=16, channels=32, ends_group=True)
        >>> [site.name for site in sites if site.ends_group]
        ['stage2_block1_add', 'stage3_block1_add', 'stage1_block1_add']
    """
    flat, calls = traced(model)
    return ranked(flat, calls, context_shape(image_source(flat, calls)[0].shape, extractor))


def traced(model):
    """Returns what `graph.trace` does of a flat model (`graph.flatten`), having checked that it can take a gate."""
    flat, calls = graph.trace(graph.flatten(model))
    if len(flat.inputs) != 1:
        raise ValueError(f"a gate needs a model with one image input; this one has {len(flat.inputs)}")
    if parts(flat).sites or any(isinstance(layer, FrozenExtractor) for layer in flat.layers):
        raise ValueError("this model is gated already; build a new one and name all sites in one call")
    return flat, calls


def chosen(sites, model, calls, shape, after_relu):
    """Returns the names of the layers to splice after, having checked that a gate fits there.

    Args:
        sites: as for `attach`; by default the ends of groups at twice and once T's resolution, or the two best sites.
        model, calls: what `graph.trace` returned.
        shape: (h, w) of T, or None for a gate without context.
        after_relu: whether each site is to be the ReLU that follows.

    Raises:
        ValueError: it does not, or there is none, with the best usable sites.
    """
    best = ranked(model, calls, shape)
    if sites is None:
        if shape is None:
            raise ValueError("without a context there is no resolution to choose sites by; name them")
        if not best:
            raise ValueError(
                f"no layer of {model.name} works at a whole multiple or fraction of T's {shape[0]}x{shape[1]}; take "
                "images of another size (say 128 or 224 px), or another extractor"
            )
        sites = [site for site in best if site.ends_group and site.height in (2 * shape[0], shape[0])] or best[:2]
    sites = [sites] if isinstance(sites, str | Site) else list(sites)
    names = [site.name for site in best[:NAMED]]
    hint = f"usable sites, best first: {', '.join(names)}{', ...' * (len(best) > NAMED)}" if best else "none is"
    if not sites:
        raise ValueError(f"name at least one site; {hint}")
    sites = [site.name if isinstance(site, Site) else site for site in sites]
    return [_checked(site, calls, shape, after_relu, hint) for site in sites]


def ranked(model, calls, shape):
    """Returns the `Site`s of a model, best first; `shape` is T's (h, w), or None for a gate without context."""
    often = collections.Counter(layer.name for layer, _, _ in calls)
    followers = collections.defaultdict(list)
    for layer, inputs, _ in calls:
        for x in inputs:
            followers[id(x)].append(layer)
    shapes = {
        layer.name: output.shape[1:]
        for layer, _, output in _maps(calls)
        if often[layer.name] == 1 and _is_site(layer, followers[id(output)]) and _reachable(output.shape, shape)
    }
    shapes = {name: size for name, size in shapes.items() if size[:2] != (1, 1)}
    ends = [name for name in _ends(model, calls) if name in shapes]
    if shape is not None:  # first those at twice and once T's resolution, in their order, then the nearest
        factors = {name: shapes[name][0] / shape[0] for name in ends}
        ends.sort(key=lambda name: 0 if factors[name] in (2, 1) else max(factors[name], 1 / factors[name]))
    others = [name for name in shapes if name not in ends]
    return [Site(name, *shapes[name], name in ends) for name in (*ends, *others)]


def _checked(name, calls, shape, after_relu, hint):
    """Returns `name`, or the name of the ReLU that follows it, having checked that a gate fits there."""
    found = [(layer, output) for layer, _, output in calls if layer.name == name]
    if not found:
        raise ValueError(f"the model has no layer {name!r}; {hint}")
    if len(found) > 1:
        raise ValueError(f"layer {name!r} is applied more than once, so a gate after it is ambiguous; {hint}")
    layer, output = found[0]
    if not isinstance(layer, layers.Layer):
        raise ValueError(f"{name!r} is an operation, whose name differs from model to model, and no layer; {hint}")
    features = getattr(output, "shape", None)
    if features is None or len(features) != 4 or features[3] is None:
        raise ValueError(f"layer {name!r} gives {features}, not a feature map (B, H, W, C); {hint}")
    if not _reachable(features, shape):
        raise ValueError(
            f"layer {name!r} works at {features[1]}x{features[2]}, which is no whole multiple or fraction of the "
            f"context's {shape[0]}x{shape[1]}; {hint}"
        )
    if after_relu and not (has_activation(layer) and layer.activation in RELUS):
        followers = [layer.name for layer, inputs, _ in calls if is_relu(layer) and inputs[0] is output]
        if not followers:
            raise ValueError(f"no ReLU follows layer {name!r}, so it cannot be gated after ReLU; {hint}")
        return _checked(followers[0], calls, shape, False, hint)
    return name


def context_shape(images, extractor):
    """Returns the (h, w) of T, having checked that the extractor takes images (B, H, W, C) of the shape `images`."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("a gate needs images (B, H, W, C); call keras.config.set_image_data_format('channels_last')")
    ours, theirs = tuple(images[1:]), tuple(extractor.inputs[0].shape[1:])
    if len(ours) != 3 or ours[0] in (1, 3) and ours[2] not in (1, 3):
        raise ValueError(f"a gate needs a model of images (B, H, W, C), channels last; this one takes {images}")
    if None in ours:
        raise ValueError(
            f"this model takes images of any size; build it for the extractor's ({theirs[0]}, {theirs[1]}, {theirs[2]})"
        )
    if ours[2] != theirs[2]:
        raise ValueError(
            f"the model takes images of {ours[2]} channels and the extractor of {theirs[2]}; repeat the one channel "
            "(keras.layers.Concatenate) in front, or train an extractor on such images"
        )
    if ours != theirs:
        raise ValueError(
            f"the extractor takes images of {theirs[0]}x{theirs[1]} px, the model {ours[0]}x{ours[1]} px; "
            "build both for one size"
        )
    return tuple(extractor.outputs[0].shape[1:3])


def is_relu(layer):
    """Whether a layer, or an operation, is a ReLU."""
    if isinstance(layer, RELU_OPERATION):  # a plain keras.ops.relu in a functional graph
        return True
    if isinstance(layer, layers.ReLU):
        return not layer.negative_slope
    return isinstance(layer, layers.Activation) and layer.activation in RELUS


def has_activation(layer):
    """Whether an activation is fused into a layer, as into `Conv2D(..., activation="relu")`."""
    fused = getattr(layer, "activation", None)
    return not isinstance(layer, ACTIVATIONS) and fused not in (None, keras.activations.linear)


def _ends(model, calls):
    """Returns the names of the layers that end groups, shallow to deep.

    A group is all that works at one resolution. It ends with its last addition or concatenation through which all of
    the image's way to an output leads; without one, with the last layer of that kind, before its activation.
    """
    producers = {id(x): (layer, inputs) for layer, inputs, output in calls for x in _tensors(output)}
    on_all_ways = _on_all_ways(model, calls)
    groups = {}
    for layer, _, output in _maps(calls):
        groups.setdefault(output.shape[1:3], []).append((layer, output))
    ends = []
    for size, group in groups.items():
        narrow = [(layer, output) for layer, output in group if id(output) in on_all_ways]
        merging = [pair for pair in narrow or group if isinstance(pair[0], layers.Add | layers.Concatenate)]
        if not (merging or narrow):
            continue
        layer, output = (merging or narrow)[-1]
        while isinstance(layer, PASSING) or is_relu(layer):
            output = producers[id(output)][1][0]
            if id(output) not in producers or output.shape[1:3] != size:
                break
            layer = producers[id(output)][0]
        ends.append(layer.name)
    return ends


def _on_all_ways(model, calls):
    """Returns the ids of the tensors through which all ways from the image to an output lead."""
    ways = {id(model.inputs[0]): 1}  # from the image to a tensor
    for _, inputs, output in calls:
        ways.update({id(x): sum(ways.get(id(before), 0) for before in inputs) for x in _tensors(output)})
    found = set()
    for end in model.outputs:
        onward = collections.Counter({id(end): 1})  # from a tensor to this output
        for _, inputs, output in reversed(calls):
            count = sum(onward[id(x)] for x in _tensors(output))
            for x in inputs:
                onward[id(x)] += count
        found |= {x for x, count in onward.items() if count and count * ways.get(x, 0) == ways[id(end)]}
    return found


def _is_site(layer, followers):
    """Whether a gate should stand after a layer, whatever its shape; `followers` are those that take its output."""
    if not isinstance(layer, layers.Layer) or isinstance(layer, PASSING + PREPROCESSING) or augments(layer):
        return False
    normalised = followers and all(isinstance(x, layers.BatchNormalization) for x in followers)
    return not (normalised and isinstance(layer, CONVOLUTIONS))


def _reachable(features, context):
    """Whether M can be brought by a whole factor from `context`, (h, w), to the (B, H, W, C) `features`."""
    if context is None or None in features[1:]:
        return context is None and features[3] is not None
    (h, w), (_, height, width, _) = context, features
    return height / h == width / w and ((height / h).is_integer() or (h / height).is_integer())


def _maps(calls):
    """Returns the calls that give features (B, H, W, C)."""
    return [call for call in calls if len(getattr(call[2], "shape", ())) == 4]


def _tensors(output):
    return [x for x in keras.tree.flatten(output) if isinstance(x, keras.KerasTensor)]
