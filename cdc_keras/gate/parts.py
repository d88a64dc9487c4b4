"""The layers of a gate by name: the one place that knows what they are called."""

import re

PREFIX = "gate_"  # of the names of all layers with weights of a gate
EXTRACTOR, ATTENTION = "extractor", "gate_attention"  # names of the layers that give T and M


def gate_outputs(gated):
    """Returns {site: name of the layer that is the gate's output there}, shallow to deep; empty if there is no gate."""
    matches = (re.fullmatch(r"gate_(.+)_out", layer.name) for layer in gated.layers)
    return {match[1]: match[0] for match in matches if match}
