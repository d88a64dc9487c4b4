"""The layers of a gate by name: the one place that knows what they are called."""

import dataclasses
import re

PREFIX = "gate_"  # of the names of all layers with weights of a gate
EXTRACTOR, ATTENTION = "extractor", "gate_attention"  # names of the layers that give T and M
EMBEDDED, SHUFFLED, POOL = "gate_embedded_context", "gate_shuffled_context", "gate_context_pool"  # Me; T, P of T
SPREAD = "gate_spread"  # prefix of the layers between V and M
L1, L2 = "gate_l1", "gate_l2"  # prefixes of the networks that give M and Me
CONTEXT_INPUT = "gate_context_input"  # brings what the model takes to [-1, 1]


@dataclasses.dataclass(frozen=True)
class Site:
    """The layers of the gate at one site by name, None for those that an ablation leaves out.

    Attributes:
        name: of the site, the layer that gives F.
        suppressed: gives F' = F * M * C, or what is left of it; F itself without attention.
        compatibility: gives C.
        residual: gives R(F).
        out: gives R(F) + F'.
    """

    name: str
    suppressed: str
    compatibility: str | None
    residual: str | None
    out: str


@dataclasses.dataclass(frozen=True)
class Parts:
    """The gates of a model by the names of their layers, None for those that it does not have.

    Attributes:
        extractor: gives T.
        attention: gives M at T's resolution.
        sites: a `Site` for each, shallow to deep; empty if there is no gate.
    """

    extractor: str | None
    attention: str | None
    sites: tuple[Site, ...]


def of_site(site, part):
    """Returns the name of a layer, or the prefix of a network, of the gate at the site `site`.

    Args:
        site: name of the gated layer.
        part: "attended" (F * M), "suppressed" (F * M * C), "compatibility" (C), "l3" and "r" (networks of three
            convolutions, "l3_conv1" and so on), "sum", "activation" (what was fused into the gated layer) or "out".
    """
    return f"{PREFIX}{site}_{part}"


def parts(gated):
    """Returns the `Parts` of a model."""
    names = {layer.name for layer in gated.layers}

    def present(*candidates):
        return next((name for name in candidates if name in names), None)

    sites = tuple(
        Site(
            name=site,
            suppressed=present(of_site(site, "suppressed"), of_site(site, "attended")) or site,
            compatibility=present(of_site(site, "compatibility")),
            residual=present(of_site(site, "r_conv3")),
            out=out,
        )
        for site, out in gate_outputs(gated).items()
    )
    return Parts(extractor=present(EXTRACTOR), attention=present(ATTENTION), sites=sites)


def output_at(model, layer):
    """Returns the name of the layer whose output goes on from `layer`: the gate there, or `layer` without one."""
    return gate_outputs(model).get(layer, layer)


def gate_outputs(gated):
    """Returns {site: name of the layer that is the gate's output there}, shallow to deep; empty if there is no gate."""
    matches = (re.fullmatch(rf"{PREFIX}(.+)_out", layer.name) for layer in gated.layers)
    return {match[1]: match[0] for match in matches if match}
