"""What a model costs: multiply-adds of one image, which the paper calls FLOPs, convolution weights and parameters.

`cdc-keras complexity` prints our counts beside those of the paper and of the networks' own papers, with `--model=...`
those of a trained model, scope by scope.
"""

import collections
import math

import keras
from keras import layers

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import L1, L2, PREFIX, of_site, parts
from cdc_keras.markdown import markdown_table
from cdc_keras.networks import autoencoder, graph, registry
from cdc_keras.networks.layers import ChannelCompatibility, ConditionMaps, FrozenExtractor


def macs(model, *, products=False):
    """Returns the multiply-adds of one image through `model`; arguments and errors as for `macs_by_layer`."""
    return sum(macs_by_layer(model, products=products).values())


def macs_by_layer(model, *, products=False):
    """Returns {layer name: multiply-adds of one image}, a layer applied twice counted twice.

    Layers of a nested model, or of the frozen extractor, are listed as "model/layer". Biases, batch norm, activations,
    pooling and additions count nothing, as is usual.

    Args:
        model: functional `keras.Model` whose image size is fixed.
        products: count what the gate multiplies besides: `ChannelCompatibility`'s dot products (Eq. 4) and every
            element-wise `Multiply` (Eq. 5).

    Raises:
        ValueError: naming the layer, for a kind with weight matrices that is not known here, or an unknown image size.
        TypeError: if `model` is not functional.
    """
    counts = collections.Counter()
    for layer, inputs, output in graph.trace(model)[1]:
        nested = layer.network if isinstance(layer, FrozenExtractor) else layer
        if hasattr(nested, "inputs"):  # a functional or Sequential model
            for name, count in macs_by_layer(_of_size(nested, inputs), products=products).items():
                counts[f"{layer.name}/{name}"] += count
        else:
            counts[layer.name] += _count(layer, inputs, output, products)
    return dict(counts)


def gate_macs(gated, plain, *, products=False):
    """Returns the multiply-adds that the gate adds to `plain`, those of the extractor not included.

    Args:
        gated: what `gate.attach` returned for `plain`.
        plain: the network without gate.
        products: as for `macs_by_layer`.
    """
    extractors = sum(macs(layer.network) for layer in gated.layers if isinstance(layer, FrozenExtractor))
    return macs(gated, products=products) - macs(plain, products=products) - extractors


def conv_weights(model):
    """Returns the number of weights in convolution kernels, frozen ones included and shared ones once."""
    return sum(math.prod(weight.shape) for weight in model.weights if len(weight.shape) == 4)


def parameters(model):
    """Returns the number of trainable parameters: without batch-norm statistics, and 0 for a frozen model."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _count(layer, inputs, output, products):
    """Returns the multiply-adds of one application of one layer."""
    if isinstance(layer, (layers.Conv2D, layers.Dense)):
        kernel = layer.kernel.shape  # (height, width, inputs / groups, filters), or (inputs, units)
        return math.prod(kernel) * _positions(layer, output, kernel[-1])
    if isinstance(layer, layers.DepthwiseConv2D):
        kernel = layer.kernel.shape  # (height, width, inputs, multiplier)
        return math.prod(kernel) * _positions(layer, output, kernel[-2] * kernel[-1])
    if isinstance(layer, layers.SeparableConv2D):
        depthwise, pointwise = layer.depthwise_kernel.shape, layer.pointwise_kernel.shape
        return (math.prod(depthwise) + math.prod(pointwise)) * _positions(layer, output, pointwise[-1])
    if isinstance(layer, layers.Conv2DTranspose):
        kernel = layer.kernel.shape  # (height, width, filters, inputs); every input pixel meets the whole kernel
        return math.prod(kernel) * _positions(layer, inputs[0], kernel[-1])
    if isinstance(layer, ConditionMaps):  # of the convolution of planes it stands for
        pixels = layer.size if layer.transposed else output.shape[1]
        return math.prod(layer.kernel.shape) * pixels**2
    if products and isinstance(layer, ChannelCompatibility):
        _, features = inputs
        return _positions(layer, features, 1)
    if products and isinstance(layer, layers.Multiply):
        return (len(inputs) - 1) * _positions(layer, output, 1)
    if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
        raise ValueError(
            f"the multiply-adds of layer {layer.name!r}, a {type(layer).__name__}, cannot be counted; "
            "build the model of Conv2D, DepthwiseConv2D, SeparableConv2D, Conv2DTranspose, Dense and nested models"
        )
    return 0


def _positions(layer, tensor, channels):
    """Returns the number of positions of `tensor`, whichever axis its `channels` are on."""
    if None in tensor.shape[1:]:
        raise ValueError(
            f"layer {layer.name!r} works on {tuple(tensor.shape)}, whose size is unknown; "
            "build the model with a fixed image size"
        )
    return math.prod(tensor.shape[1:]) // channels


def _of_size(model, inputs):
    """Returns the nested `model` on inputs of the size it is called with, which its own may leave open."""
    given = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in keras.tree.flatten(inputs)]
    model = keras.Model(model.inputs, model.outputs)
    return graph.rebuild(model, lambda layer, *args, **kwargs: layer(*args, **kwargs), inputs=given)


def scopes(model):
    """Returns {"network", "gate", "extractor": (parameters, multiply-adds of one image)} of a model, gated or not.

    A scope the model does not have is left out. Parameters are those that some training moves, so without batch-norm
    statistics, the frozen extractor's included. The gate is told by the names that `gate.attach` gives; its products
    (Eqs. 4 and 5) are counted.

    Args:
        model: functional `keras.Model` whose image size is fixed.
    """
    costs = collections.Counter()
    for name, count in macs_by_layer(model, products=True).items():
        costs[_scope(name)] += count
    weights = collections.Counter()
    for layer in model.layers:
        moved = (w for w in layer.weights if not w.path.endswith(("moving_mean", "moving_variance")))
        weights[_scope(layer.name)] += sum(math.prod(w.shape) for w in moved)
    return {scope: (weights[scope], costs[scope]) for scope in SCOPES if weights[scope] or costs[scope]}


def _scope(layer):
    """Returns which of `SCOPES` a layer belongs to, by its name ("extractor/..." for those inside the extractor)."""
    if layer.split("/")[0] == "extractor":
        return "extractor"
    return "gate" if layer.startswith(PREFIX) else "network"


def scopes_table(model):
    """Returns what each part of a model costs as a Markdown table."""
    counts = scopes(model)
    counts["all"] = tuple(map(sum, zip(*counts.values(), strict=True)))
    rows = [(name, f"{weights:,}", f"{cost:,}") for name, (weights, cost) in counts.items()]
    return markdown_table(("scope", "parameters", "multiply-adds"), rows)


def table():
    """Returns our counts of the networks, and of the extractor and the gate, as two Markdown tables."""
    head = ("network", "pixels", "classes", "parameters", "multiply-adds", "the paper prints")
    parts_head = ("part", "count", "ours", "the paper prints")
    return f"{markdown_table(head, network_rows())}\n\n{markdown_table(parts_head, part_rows())}"


def network_rows():
    """Yields (network, pixels, classes, parameters, multiply-adds, what the paper prints) of the networks."""
    for name, block_attention, size, num_classes, printed in NETWORKS:
        model = registry.build(name, size, num_classes=num_classes, block_attention=block_attention)
        title = name if block_attention == "none" else f"{name} + {block_attention.upper()}"
        yield title, size, num_classes, f"{parameters(model):,}", f"{macs(model):,}", printed


def part_rows():
    """Yields (part, count, ours, what the paper prints) of the extractor, for every preset of A.1, and of the gate."""
    for (size, context_size), _ in autoencoder.GROUPS.items():
        encoder = autoencoder.encoder(size, context_size=context_size)
        e1 = keras.Model(encoder.input, encoder.get_layer("e1_conv4_act").output)
        part = f"extractor, {size} px, T {context_size}x{context_size}"
        yield part, "E1, multiply-adds", f"{macs(e1):,}", "7.21M" if size == 32 else ""
        yield part, "E1 + E2 + G1, multiply-adds", f"{macs(encoder):,}", ""
        yield part, "E1 + E2 + G1, convolution weights", f"{conv_weights(encoder):,}", ""
        if size == 32:
            decoder = autoencoder.decoder(32, (8, 8, 64), num_classes=1000)
            embedding = sum(parameters(decoder.get_layer(f"condition_dense{i}")) for i in (1, 2))
            what = "the same, with batch norm and the embedding of 1000 categories, parameters"
            yield part, what, f"{parameters(encoder) + embedding:,}", "0.35M"
    encoder = autoencoder.encoder(32)
    for name, num_classes in GATED:
        network = registry.build(name, 32, num_classes=num_classes)
        gated = attach(network, encoder, registry.sites(network, 8, 16))
        weights = conv_weights(gated) - conv_weights(network) - conv_weights(encoder)
        part = f"gate of {name}"
        yield part, "convolution weights", f"{weights:,}", "0.034M" if name.startswith("resnet") else ""
        yield part, "parameters, with batch norm", f"{scopes(gated)['gate'][0]:,}", ""
        yield part, "multiply-adds and products", f"{scopes(gated)['gate'][1]:,}", ""
        if name == "resnet32":
            by_layer = macs_by_layer(gated)
            convs = tuple(of_site(site.name, x) for site in parts(gated).sites for x in ("r_conv", "l3_conv"))
            bottlenecks = sum(count for layer, count in by_layer.items() if layer.startswith(convs))
            maps = sum(count for layer, count in by_layer.items() if layer.startswith((f"{L1}_", f"{L2}_")))
            yield part, "R and L3 alone, multiply-adds", f"{bottlenecks:,}", ""
            what = "all, if L1 and L2 ran at 16x16 as well, which we do not do"
            yield part, what, f"{gate_macs(gated, network, products=True) + 4 * maps:,}", "3.61M"


SCOPES = ("network", "gate", "extractor")

# name, block attention, pixels, classes, what the paper prints (Sec. 4.2, "Complexity")
NETWORKS = (
    *((name, "none", 32, 10, "") for name in ("vgg13", "vgg16", "resnet20")),
    ("resnet32", "none", 32, 1000, "0.53M, 68.19M"),
    ("resnet56", "none", 32, 1000, "0.92M, 125.51M"),
    ("resnet110", "none", 32, 1000, "1.79M, 254.46M"),
    *((name, "none", 32, 10, "") for name in ("preresnet110", "preresnet164", "wrn16_10", "wrn28_10")),
    *(("resnet18", attention, 224, 1000, "") for attention in ("none", "se", "cbam")),
    ("resnet34", "none", 224, 1000, ""),
    *(("resnet50", attention, 224, 1000, "") for attention in ("none", "se", "cbam")),
    *(("resnet101", attention, 224, 1000, "") for attention in ("none", "se", "cbam")),
    ("resnet152", "none", 224, 1000, ""),
)
# name, classes: the networks of Tables 1 to 4
GATED = (("resnet32", 1000), ("resnet56", 1000), ("resnet110", 1000), ("vgg13", 10), ("wrn16_10", 10))
