"""Scoring one finished run of a table."""

import numpy as np

from cdc_keras.config import RunConfig
from cdc_keras.data.backgrounds import BACKGROUNDS, background_variants
from cdc_keras.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from cdc_keras.data.dataset import Split
from cdc_keras.data.load import load_dataset
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_trainer
from cdc_keras.tables.gate_use import gate_use
from cdc_keras.tables.jobs import settings_of
from cdc_keras.tables.table_row import TableRow
from cdc_keras.weights import write_text

SCORED = "row.json"
HISTORY = ("val_top1", "test_top1", "test_top5")
MOST_IMAGES = 10_000  # of the test split, on which a gate is taken apart
# The shapes of the backgrounds challenge are none of those the networks are trained or tested on.
BACKGROUND_SEED, BACKGROUND_IMAGES = 10_000, 2_000


def score_run(run, row, *, corrupted_images):
    """Returns the `TableRow` of a finished run, and writes it into its folder unless it is there.

    Args:
        run: a `RunFolder`.
        row: name of the `Row` it is a seed of.
        corrupted_images: score so many test images under every corruption; 0 leaves that out.
    """
    if (stored := stored_row(run, corrupted_images)) is not None:
        return stored
    config, notes, epochs = run.config(), run.notes(), run.rows()
    model = load_trainer(run)
    network = model.network
    # In random order: of the first ones, and of the image before each, the category says nothing.
    test = load_dataset(config).test.sample(0, max(MOST_IMAGES, corrupted_images))
    scored = TableRow(
        row=row,
        settings=settings_of(config),
        context=_context(run, config),
        teacher=_teacher(run, config),
        history={name: [round(epoch[name], 6) for epoch in epochs] for name in HISTORY if name in epochs[0]},
        images_per_second=float(np.median([epoch["images_per_second"] for epoch in epochs])),
        parameters=_count(v for v in network.variables if "moving_" not in v.path),
        trainable_parameters=_count(network.trainable_variables),
        corrupted_images=corrupted_images,
        corrupted=_corrupted(model, test, config, corrupted_images),
        backgrounds=_backgrounds(model, config),
        gate=gate_use(network, test) if config.gated else None,
        commits=_commits(notes),
        **{key: notes[key] for key in ("hardware", "versions", "started", "train_images", "hours")},
    )
    write_text(run.path / SCORED, scored.to_json() + "\n")
    return scored


def stored_row(run, corrupted_images):
    """Returns the `TableRow` in a run's folder, None if there is none or one of another number of corrupted images."""
    path = run.path / SCORED
    if not path.is_file():
        return None
    stored = TableRow.from_json(path.read_text(encoding="utf-8"), path)
    return stored if stored.corrupted_images == corrupted_images else None


def _count(variables):
    """Returns how many numbers some variables hold."""
    return sum(int(np.prod(v.shape)) for v in variables)


def _commits(notes):
    """Returns the commits a run was started, gone on with and scored at, each once."""
    places = [notes, *notes.get("resumed", []), environment()]
    return list(dict.fromkeys(str(place["commit"]) for place in places))


def _teacher(run, config):
    """Returns whose attention a run was given: its settings, and its top-1 on a split; None without one."""
    if config.teacher is None:
        return None
    teacher = run.notes()["teacher"]
    settings = settings_of(RunFolder(config.teacher).config())
    return {"settings": settings, **{name: teacher[name] for name in ("sha256", "split", "top1")}}


def _context(run, config):
    """Returns which extractor gates a run: sha256 of its weights, its settings; None without one."""
    if config.extractor is None:
        return None
    settings = settings_of(RunConfig.from_json(run.extractor_config.read_text(encoding="utf-8")))
    return {"sha256": run.notes()["extractor_sha256"], "settings": settings}


def _corrupted(model, test, config, count):
    """Returns {"images": how many, "top1": {corruption: [at severity 1, ..., 5]}}; None for no images."""
    if not count:
        return None
    test = test.take(slice(count))
    top1 = {
        name: [_top1(model, Split(corrupt(test.images, name, s, seed=0), test.labels), config) for s in SEVERITIES]
        for name in CORRUPTIONS
    }
    return {"images": len(test), "top1": top1}


def _backgrounds(model, config):
    """Returns {"images": how many, "top1": {variant: share}} of the backgrounds challenge; None but on `shapes`."""
    if config.dataset != "shapes":
        return None
    variants = background_variants(
        BACKGROUND_IMAGES,
        seed=BACKGROUND_SEED,
        background_bias=config.background_bias,
        difficulty=config.difficulty,
        image_size=config.image_size,
    )
    return {"images": BACKGROUND_IMAGES, "top1": {name: _top1(model, variants[name], config) for name in BACKGROUNDS}}


def _top1(model, split, config):
    return score(model, split, config).check_finite().metrics["top1"]
