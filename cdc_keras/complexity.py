"""What a model costs: multiply-adds of one image, which the paper calls FLOPs, convolution weights and parameters.

`python -m cdc_keras.complexity` prints our counts beside those of the paper and of the networks' own papers.
"""

import collections
import math

import keras
from keras import layers

from cdc_keras import gating, graph, networks
from cdc_keras.layers import ChannelCompatibility, FrozenExtractor
from cdc_keras.networks import autoencoder


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
        gated: what `gating.attach` returned for `plain`.
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
    if products and isinstance(layer, ChannelCompatibility):
        _, features = inputs
        return _positions(layer, features, 1)
    if products and isinstance(layer, layers.Multiply):
        return (len(inputs) - 1) * _positions(layer, output, 1)
    if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
        raise ValueError(
            f"the multiply-adds of layer {layer.name!r}, a {type(layer).__name__}, can not be counted; "
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


def _rows():
    """Yields (what, ours, expected as printed in the papers or derived in the docs)."""
    encoder = autoencoder.encoder(32)
    e1 = keras.Model(encoder.input, encoder.get_layer("e1_conv4_act").output)
    yield "E1, MACs", macs(e1), "7,208,960"
    yield "E1 + E2 + G1, MACs", macs(encoder), "9,830,400"
    yield "E1 + E2 + G1, convolution weights", conv_weights(encoder), "342,528"
    decoder = autoencoder.decoder(32, (8, 8, 64), num_classes=1000)
    embedding = sum(parameters(decoder.get_layer(f"condition_dense{i}")) for i in (1, 2))
    yield "the same + batch norm + embedding of 1000 categories, parameters", parameters(encoder) + embedding, "0.354M"

    resnet = networks.build("resnet32", 32, num_classes=1000)
    gated = gating.attach(resnet, encoder, networks.default_sites("resnet32", 32, 8))
    by_layer = macs_by_layer(gated)
    bottlenecks = sum(count for name, count in by_layer.items() if "_r_conv" in name or "_l3_conv" in name)
    maps = sum(count for name, count in by_layer.items() if name.startswith(("gate_l1_", "gate_l2_")))
    with_products = gate_macs(gated, resnet, products=True)
    weights = conv_weights(gated) - conv_weights(resnet) - conv_weights(encoder)
    yield "gate of ResNet-32, convolution weights", weights, "33,784"
    yield "gate of ResNet-32, R and L3, MACs", bottlenecks, "3,407,872"
    yield "gate of ResNet-32, all of it, MACs (our default: L1 and L2 run once, at 8x8)", with_products, None
    yield "the same if L1 and L2 ran at 16x16 as well (not our default)", with_products + 4 * maps, "3.61M"

    for name, count, cost in (("vgg13", "9,416,010", "228.27M"), ("vgg16", "14,728,266", "313.20M")):
        model = networks.build(name, 32, num_classes=10)
        yield f"{name}, 10 classes, parameters", parameters(model), count
        yield f"{name}, 10 classes, MACs", macs(model), cost
    sizes = (("resnet32", "0.529M", "68.9M"), ("resnet56", "0.917M", "125.5M"), ("resnet110", "1.792M", "253.0M"))
    for name, count, cost in sizes:
        model = networks.build(name, 32, num_classes=1000)
        yield f"{name}, 1000 classes, parameters", parameters(model), count
        yield f"{name}, 1000 classes, MACs", macs(model), cost


def _difference(ours, expected):
    """Returns ours minus expected as text, in the unit and to the digits of `expected` ("228.27M" or "342,528")."""
    unit = 1e6 if expected.endswith("M") else 1
    digits = expected.rstrip("M").partition(".")[2]
    number = float(expected.rstrip("M").replace(",", ""))
    return f"{round(ours / unit, len(digits)) - number:.{len(digits)}f}{'M' if unit > 1 else ''}"


def table():
    """Returns the counts as a Markdown table: ours, expected, and the difference at the digits of the expected one."""
    lines = ["| count | ours | expected | difference |", "|---|---:|---:|---:|"]
    for what, ours, expected in _rows():
        difference = "" if expected is None else _difference(ours, expected)
        lines.append(f"| {what} | {ours:,} | {expected or ''} | {difference} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
