"""The names of a gate's layers: what `parts` says is there, and that its layers give what it says they give."""

import keras
import pytest

from cdc_keras.gate.attach import attach
from cdc_keras.gate.parts import Parts, Site, output_at, parts
from cdc_keras.networks import autoencoder, registry

SITE = "stage2_block1_add"


def gated(**options):
    plain = registry.build("resnet8", 32, num_classes=3)
    return attach(plain, autoencoder.encoder(32) if options.get("attention", True) else None, SITE, **options)


def test_a_model_without_gate_has_no_parts():
    plain = registry.build("resnet8", 32, num_classes=3)
    assert parts(plain) == Parts(extractor=None, attention=None, sites=())
    assert output_at(plain, SITE) == SITE


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, {}),
        ({"residual": False}, {"residual": None}),
        ({"compatibility": "none"}, {"compatibility": None, "suppressed": f"gate_{SITE}_attended"}),
        ({"attention": False}, {"compatibility": None, "suppressed": SITE}),
    ],
)
def test_the_parts_of_a_gate_are_those_that_an_ablation_leaves(options, missing):
    model = gated(**options)
    names = {
        "suppressed": f"gate_{SITE}_suppressed",
        "compatibility": f"gate_{SITE}_compatibility",
        "residual": f"gate_{SITE}_r_conv3",
        "out": f"gate_{SITE}_out",
    }
    assert parts(model).sites == (Site(SITE, **names | missing),)
    assert (parts(model).extractor is None) == (options.get("attention") is False)
    assert all(model.get_layer(name) for name in (names | missing).values() if name)
    assert output_at(model, SITE) == f"gate_{SITE}_out" and output_at(model, "stem") == "stem"


def test_the_layers_it_names_give_t_m_c_and_features_of_the_sites_shape():
    model = gated()
    (site,) = parts(model).sites
    shape_of = {
        name: keras.Model(model.input, model.get_layer(name).output).output_shape
        for name in (parts(model).extractor, parts(model).attention, site.compatibility, site.suppressed, site.residual)
    }
    assert list(shape_of.values()) == [
        (None, 8, 8, 64),
        (None, 8, 8, 1),
        (None, 1, 1, 32),
        (None, 16, 16, 32),
        (None, 16, 16, 32),
    ]
