"""What a trained gate does: how M, C and R move, and what of the accuracy is lost without each."""

import keras
import numpy as np
from keras import ops

from cdc_keras.data.pipeline import in_batches, scale
from cdc_keras.gate.parts import PREFIX, parts
from cdc_keras.networks import graph

SATURATED = 0.02  # of the range: M or C this close to an end hardly passes a gradient


def gate_use(gated, split):
    """Returns what the gates of a classifier do on a split, as a JSON-ready dict; None for a network without a gate.

    * `top1`: of the classifier as it is, and with a part replaced: `r_off` (R(F) = 0), `m_constant` and `c_constant`
      (their means over the images, and for M over the positions), `t_shuffled` (T of the image before).
    * `m`, and for each site `c`: mean; `within`, the standard deviation over the positions (channels) of an image;
      `across`, over the images at a position (channel), averaged; `saturated`, the share within 2% of an end.
    * `residual`: for each site rms(R(F)) / rms(F').

    Args:
        gated: functional classifier, images in [-1, 1] -> logits.
        split: a `Split`; in random order, or the shuffled T is of the own category.
    """
    gate = parts(gated)
    if not gate.sites:
        return None
    m = [gate.attention] if gate.attention else []
    c = [site.compatibility for site in gate.sites if site.compatibility]
    r = {site.residual: site.suppressed for site in gate.sites if site.residual}
    seen = _measured(gated, split, [*m, *c], lambda x: x)
    rms = _rms(gated, split, [*r, *r.values()])
    networks = {"as_is": gated}
    if r:
        networks["r_off"] = _replaced(gated, r, lambda name, x: x * 0)
    for key, layers, axes in (("m", m, (0, 1, 2)), ("c", c, 0)):  # M has one mean, C one for each channel
        if layers:
            means = {name: seen[name].mean(axis=axes) for name in layers}
            constant = _replaced(gated, layers, lambda name, x, means=means: x * 0 + means[name])
            networks[f"{key}_constant"] = constant
    if gate.extractor:
        networks["t_shuffled"] = _replaced(gated, [gate.extractor], _of_another_image)
    return {
        "images": len(split),
        "top1": _top1(networks, split),
        "m": _spread(seen[gate.attention], _largest(gated, gate.attention)) if m else None,
        "c": {name.removeprefix(PREFIX): _spread(seen[name], _largest(gated, name)) for name in c},
        "residual": {residual.removeprefix(PREFIX): rms[residual] / rms[f] for residual, f in r.items()},
    }


def _top1(networks, split):
    """Returns {name: share of the images that a network gets right}."""

    def answers(images):
        inputs = scale(images)
        return {name: ops.argmax(network(inputs, training=False), axis=-1) for name, network in networks.items()}

    return {name: float(np.mean(y == split.labels)) for name, y in in_batches(answers, split.images).items()}


def _of_another_image(name, given):
    return keras.tree.map_structure(lambda x: ops.roll(x, 1, axis=0), given)  # T, or T and V


def _largest(gated, name):
    """Returns the largest value that the layer of M or C can give: 1, or the factor behind its sigmoid."""
    return float(getattr(gated.get_layer(name), "scale", 1.0))


def _spread(values, largest):
    """Returns what `gate_use` says of M (N, h, w, 1) or C (N, 1, 1, C)."""
    flat = values.reshape(len(values), -1)
    low, high = SATURATED * largest, (1 - SATURATED) * largest
    return {
        "mean": float(flat.mean()),
        "within": float(flat.std(axis=1).mean()),
        "across": float(flat.std(axis=0).mean()),
        "saturated": float(((flat < low) | (flat > high)).mean()),
    }


def _rms(model, split, layers):
    """Returns {layer: root of the mean square of its outputs}."""
    squares = _measured(model, split, layers, lambda x: ops.mean(ops.square(x), axis=(1, 2, 3)))
    return {name: float(np.mean(x, dtype=np.float64)) ** 0.5 for name, x in squares.items()}


def _measured(model, split, layers, of):
    """Returns {layer: `of(x)` of its outputs x over a split, in float32}."""
    if not layers:
        return {}
    tapped = graph.activations(model, layers)

    def measured(images):
        seen = tapped(scale(images), training=False)
        return {name: of(ops.cast(seen[name], "float32")) for name in layers}

    return in_batches(measured, split.images)


def _replaced(model, names, of):
    """Returns the model with the outputs x of the layers `names` replaced by `of(name, x)`."""

    def call(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        return of(layer.name, output) if layer.name in names else output

    return graph.rebuild(model, call)
