"""The layers of a gate by name: the one place that knows what they are called."""

import re

PREFIX = "gate_"  # of the names of all layers with weights of a gate
EXTRACTOR, ATTENTION = "extractor", "gate_attention"  # names of the layers that give T and M


def gate_outputs(gated):
    """Returns {site: name of the layer that is the gate's output there}, shallow to deep; empty if there is no gate."""
    matches = (re.fullmatch(r"gate_(.+)_out", layer.name) for layer in gated.layers)
    return {match[1]: match[0] for match in matches if match}


def channel_weights(site):
    """Returns the name of the layer that gives C at a site."""
    return f"{PREFIX}{site}_compatibility"


def suppressed(gated, site):
    """Returns the name of the layer that gives F' at a site; None without attention, as F' is F then."""
    names = {layer.name for layer in gated.layers}
    return next((x for x in (f"{PREFIX}{site}_suppressed", f"{PREFIX}{site}_attended") if x in names), None)


def residual(site):
    """Returns the name of the last convolution of R at a site, which gives R(F)."""
    return f"{PREFIX}{site}_r_conv3"


def scope(layer_name):
    """Returns whether a layer belongs to the "extractor", the "gate" or the "network".

    Args:
        layer_name: name of a layer of a model; of one inside a nested model "model/layer".
    """
    if layer_name.split("/")[0] == EXTRACTOR:
        return "extractor"
    return "gate" if layer_name.startswith(PREFIX) else "network"
