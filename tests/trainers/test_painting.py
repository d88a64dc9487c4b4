"""A classifier's images painted anew: which, what they become, what stays, and what is refused."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from tiny_runs import CLASSIFIER, EXTRACTOR

from cdc_keras.errors import UserError
from cdc_keras.networks import autoencoder, registry
from cdc_keras.runs.trained import load_trainer
from cdc_keras.runs.training import train
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.painting import painter

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
LABELS = np.arange(8, dtype="int32") % 4


@pytest.fixture(scope="module")
def networks():
    encoder = autoencoder.encoder(32, context_channels=8, noise=0.5)
    return encoder, autoencoder.decoder(32, (8, 8, 8), num_classes=4, conditioning="film")


def painted(networks, share, control=False, seed=0):
    paint = painter(*networks, share=share, control=control)
    return [np.asarray(x) for x in paint(IMAGES, LABELS, keras.random.SeedGenerator(seed))]


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("control", [False, True])
def test_the_first_of_a_batch_are_what_the_decoder_paints_and_the_rest_stay(networks, share, control):
    images, labels = painted(networks, share, control)
    count = int(8 * share)
    assert (images[count:] == IMAGES[count:]).all() and (labels[count:] == LABELS[count:]).all()
    assert (labels[:count] == LABELS[:count]).all() if control else (labels[:count] != LABELS[:count]).all()
    encoder, decoder = networks
    context = np.asarray(autoencoder.mean_encoder(encoder)(IMAGES[:count], training=False))
    expected = decoder([context, np.eye(4, dtype="float32")[labels[:count]]], training=False)
    np.testing.assert_allclose(images[:count], expected, atol=1e-6)


def test_every_other_category_is_drawn_and_another_seed_draws_others(networks):
    drawn = [painted(networks, 1.0, seed=seed)[1] for seed in range(20)]
    assert {(own, new) for labels in drawn for own, new in zip(LABELS, labels, strict=True)} == {
        (own, new) for own in range(4) for new in range(4) if own != new
    }
    assert len({labels.tobytes() for labels in drawn}) > 15


def test_a_classifier_learns_from_them_and_the_painter_stays_as_it_was(networks):
    before = [v.numpy() for network in networks for v in network.variables if "seed" not in v.path]
    model = Classifier(registry.build("resnet8", 32, num_classes=4), painter(*networks, share=0.5), seed=3)
    model.compile(keras.optimizers.SGD(0.1))
    assert len(model.variables) - len(Classifier(registry.build("resnet8", 32, num_classes=4)).variables) <= 3
    seen = []
    model.paint = lambda *batch: seen.append(painter(*networks, share=0.5)(*batch)) or seen[-1]
    loss = float(model.update(IMAGES, LABELS)["loss"])
    images, labels = (np.asarray(x) for x in seen[0])
    assert (labels[:4] != LABELS[:4]).all()
    twin = Classifier(model.network)
    twin.compile(keras.optimizers.SGD(0.0))
    assert loss != pytest.approx(float(twin.update(IMAGES, LABELS)["loss"]), rel=1e-4)
    after = [v.numpy() for network in networks for v in network.variables if "seed" not in v.path]
    assert all((x == y).all() for x, y in zip(before, after, strict=True))
    assert any(key.startswith("random_state") for key in model._states())  # so that a resumed run draws on


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"counterfactual_share": 0.5}, "set task=classifier and painter"),
        ({"painter": "zoo:shapes"}, "would do nothing; set counterfactual_share"),
        ({"counterfactual_control": True}, "would do nothing; set counterfactual_share"),
        (
            {"counterfactual_share": 0.5, "painter": "zoo:shapes", "augmentation": "mixup"},
            "mixup gives an image several categories",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(CLASSIFIER, **settings)


def test_a_decoder_that_is_told_no_category_paints_nothing(tmp_path):
    gm = train(dataclasses.replace(EXTRACTOR, context="gm"), tmp_path / "gm", pictures=False)
    config = dataclasses.replace(CLASSIFIER, counterfactual_share=0.5, painter=str(gm.path))
    with pytest.raises(UserError, match="has no decoder that is told the category, which counterfactual_share needs"):
        train(config, tmp_path / "run", pictures=False)


def test_a_run_notes_its_painter_and_goes_on_with_no_other(tmp_path):
    first, second = (
        train(dataclasses.replace(EXTRACTOR, context="cgm", seed=seed), tmp_path / f"{seed}", pictures=False)
        for seed in (0, 1)
    )
    config = dataclasses.replace(CLASSIFIER, counterfactual_share=0.5, painter=str(first.path))
    run = train(config, tmp_path / "run", pictures=False)
    assert run.notes()["painter_sha256"] == first.notes()["extractor_sha256"]
    model = load_trainer(run)  # which paints nothing, and can be scored
    assert model.paint is None and np.isfinite(np.asarray(model.network(IMAGES))).all()
    run.note(finished=False)
    shutil.rmtree(first.path)
    second.path.rename(first.path)
    with pytest.raises(UserError, match="has other weights than when .* was started"):
        train(config, run.path, pictures=False)
