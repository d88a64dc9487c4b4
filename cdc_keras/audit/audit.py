"""Is T free of the category? Fresh classifiers, trained on T alone, say how much of it can still be read.

The discriminator cannot say: it is the very player that the extractor learned to fool. A probe that never met the
extractor is a fairer judge: the category it reads on unseen images is in T. A probe that reads nothing may be weak. So
the same probes also read the category from pixels and from rivals' T, and the known nuisance factors, which T is
meant to keep.

`cdc-keras audit --model=runs/...` writes one table, one figure, and the numbers.
"""

import dataclasses
import json
import pathlib

from cdc_keras.audit import summary
from cdc_keras.audit.examination import Examination
from cdc_keras.audit.probes import PROBES
from cdc_keras.choices import record_name
from cdc_keras.data.load import load_dataset
from cdc_keras.data.shapes import shapes
from cdc_keras.data.split import stratified_cut
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load_disentangler, load_trained
from cdc_keras.weights import make_folder, write_text
from cdc_keras.zoo import loading
from cdc_keras.zoo.findings import FEATURES, NOISY, Audit, Tolerance, features_title
from cdc_keras.zoo.strict import NAME

LIMIT = 20_000  # images
COMPARED = 1000  # images at a time
OF_ZOO = "audits"  # folder for the audits of released models
FRESH = 1  # with the audit's seed, of the scenes that probes learn from; no data set is drawn by two numbers


def audit(model, *, rivals=None, classifier=None, data_dir=None, out=None, limit=LIMIT, seed=0):
    """Returns the audit of an extractor as a JSON-ready dict, having written audit.json, audit.md and audit.png.

    Probes are trained on images that neither extractor nor discriminator saw, and everything is scored on others of the
    kind. On `shapes` they learn from `limit` fresh scenes and are scored on the test images. Elsewhere they learn from
    the validation images and are scored on the test images, if training held out more for validation than half of the
    test images; if not, the test images are cut into two halves, every class in proportion. `findings` in the result
    are `Finding`s as dicts.
    Probes read the category, and `NUISANCES` where they are known, from T, from rivals' T, from pixels, from T with
    shuffled training labels and from T after linear erasure of the category. D reads the category from T. The
    classifier judges T decoded under its own and under another category.

    The erasure is fitted twice. Fitted on the probes' images it is the floor: a linear probe learns nothing from them.
    Fitted on images the extractor was trained on, as its adversary was, it shows what is left on new images.

    Args:
        model: the extractor, the path of a finished run or "zoo:<name>".
        rivals: {name: path or "zoo:<name>"} of extractors of the same images that are probed beside it.
        classifier: path or "zoo:<name>" of a classifier of the same images, to judge what is decoded; none by default.
        data_dir: where the data are now, if not where they were in training.
        out: folder for the three files; by default the run folder, of a released model audits/<name>.
        limit: at most this many test images, so many validation images or fresh scenes, and so many of training for the
            erasure, drawn at random.
        seed: decides which images are taken, their halves, and everything random in the probes.

    Raises:
        UserError: for anything a person can put right, in one sentence.
    """
    out = folder(model, out)
    result = measure(model, rivals=rivals, classifier=classifier, data_dir=data_dir, limit=limit, seed=seed)
    write(result, out)
    return result


@keras_defaults()
def measure(model, *, rivals=None, classifier=None, data_dir=None, limit=LIMIT, seed=0):
    """Returns the dict that `audit` returns and writes nothing; arguments and errors are those of `audit`."""
    places = {"context": model} | {_rival(x): place for x, place in (rivals or {}).items()}
    trained = {name: load_trained(place, "extractor") for name, place in places.items()}
    whole = [name for name, of in trained.items() if not of.config.classifies]
    disentanglers = {name: load_disentangler(places[name]) for name in whole}
    judge = load_trained(classifier, "classifier") if classifier is not None else None
    subject = trained["context"]
    config = dataclasses.replace(subject.config, data_dir=data_dir or subject.config.data_dir)
    dataset = load_dataset(config)
    if record_name(model) is None:
        RunFolder(model).check_data(dataset)
    held_out = {"testing": dataset.test}
    if judge is not None:
        _check_unseen(classifier, judge, config, dataset, held_out)
    if _learns_from_validation(dataset):
        held_out["validation"] = dataset.validation
    for name, other in trained.items():
        if name != "context":
            _check_unseen(places[name], other, config, dataset, held_out)
    parts = _learned_and_scored(dataset, config, limit, seed)

    examination = Examination(*parts, dataset.train.sample(seed, limit), len(dataset.class_names), seed)
    networks = {name: of.network for name, of in trained.items()}
    drawn = config if dataset.name == "shapes" else None
    examination.run(networks, disentanglers, judge and judge.network, drawn)
    findings = Audit(
        seed=seed,
        limit=limit,
        rivals={name: of.sha256 for name, of in trained.items() if name != "context"},
        classifier=judge and judge.sha256,
        probe_images=len(parts[0]),
        scored_images=len(parts[1]),
        erased=examination.erased,
        findings=tuple(examination.findings),
        tolerance=NOISY if subject.config.context_noise else Tolerance(),
    )
    result = {
        "dataset": dataset.name,
        "image_size": dataset.image_size,
        "extractor_sha256": subject.sha256,
        **dataclasses.asdict(findings),
        "reconstruction_mse": examination.errors,
        "scenes": examination.scenes,
        "probes": PROBES,
        "notes": _notes(set(trained) - set(whole), judge),
        "environment": environment(),
    }
    return json.loads(json.dumps(result))


def write(result, out):
    """Writes audit.json, audit.md and audit.png of the dict that `measure` returned into the folder `out`."""
    write_text(out / summary.TEXT, summary.text(result))
    write_text(out / summary.NUMBERS, json.dumps(result, indent=2) + "\n")
    summary.draw(summary.audit_of(result).findings, out / summary.FIGURE)


def folder(model, out):
    """Returns the folder to write the audit of a model to, made if it is not there; it can be written."""
    name = record_name(model)
    if out is None and name is None:
        RunFolder(model).config()  # a folder that is none is not made
        out = model
    elif out is None:
        loading.info(name)  # nor one for a record that is none
        out = pathlib.Path(OF_ZOO, name)
    path = RunFolder(out).path
    make_folder(path)
    return path


def _rival(name):
    if not NAME.fullmatch(name) or name in FEATURES:
        taken = ", ".join(FEATURES)
        raise UserError(
            f"a rival's name is of a-z, 0-9, '_', '.' and '-' and none of {taken}, not {name!r}; choose another"
        )
    return name


def _check_unseen(place, other, ours, dataset, held_out):
    """Raises UserError unless `other`, a trained network, has the extractor's categories and saw no image held out.

    Args:
        place: of `other`, for the error.
        other: `Trained`.
        ours: `RunConfig` of the extractor, with the place of its data.
        dataset: of the extractor.
        held_out: {"testing" or "validation": the `Split` of the dataset that the audit uses}.
    """
    theirs = other.config
    for name in ("dataset", "image_size"):
        if (a := getattr(ours, name)) != (b := getattr(theirs, name)):
            raise UserError(f"{place} was trained with {name} {b}, the extractor with {a}; give one of the same")
    if other.class_names != tuple(dataset.class_names):
        raise UserError(f"{place} was trained on other categories than the extractor; give one of the same")
    cut = "seed", "validation_fraction"
    if all(getattr(ours, name) == getattr(theirs, name) for name in cut):
        return
    # Both decide what is held out, of the test images only where a data set has no such split of its own.
    other_dataset = load_dataset(dataclasses.replace(theirs, data_dir=ours.data_dir))
    for purpose, split in held_out.items():
        if not _same_images(split, other_dataset.validation if purpose == "validation" else other_dataset.test):
            settings, others = (
                " and ".join(f"{name} {getattr(config, name)}" for name in cut) for config in (ours, theirs)
            )
            raise UserError(
                f"{place} may have been trained on images that the extractor with {settings} holds out for {purpose}, "
                f"its own being {others}; give one of the same"
            )


def _same_images(one, other):
    """Returns whether two `Split`s hold the same images in the same order."""
    parts = [slice(start, start + COMPARED) for start in range(0, len(one), COMPARED)]
    return len(one) == len(other) and all((one.images[x] == other.images[x]).all() for x in parts)


def _learns_from_validation(dataset):
    """Returns whether more images are held out for validation than probes would have of the test images."""
    return dataset.name != "shapes" and len(dataset.validation) > len(dataset.test) // 2


def _learned_and_scored(dataset, config, limit, seed):
    """Returns two `Split`s, for probes to learn from and to be scored on, of images that no player saw."""
    if dataset.name == "shapes":
        shown = {"difficulty": config.difficulty, "image_size": dataset.image_size}
        return shapes(limit, seed=(seed, FRESH), **shown), dataset.test.sample(seed, limit)
    if _learns_from_validation(dataset):
        return dataset.validation.sample(seed, limit), dataset.test.sample(seed, limit)
    return halves(dataset, limit, seed)


def halves(dataset, limit, seed, split="test"):
    """Returns two `Split`s of at most `limit` images together, every class in proportion: for probes, and to score.

    Args:
        dataset: a `Dataset`.
        limit: at most so many images, drawn at random.
        seed: of the draw and of the cut.
        split: "test", or "validation", on which settings are chosen.
    """
    examples, num_classes = getattr(dataset, split).sample(seed, limit), len(dataset.class_names)
    if len(examples) < 2 * num_classes:
        raise UserError(
            f"{dataset.name} has {len(examples)} {split} images for {num_classes} categories; two of each are needed"
        )
    return tuple(examples.take(rows) for rows in stratified_cut(examples.labels, len(examples) // 2, seed))


def _notes(bare, judge):
    """Returns what could not be measured and why, as sentences; `bare` are the extractors without a `Disentangler`."""
    notes = []
    if bare:
        notes.append(
            f"Of {', '.join(map(features_title, sorted(bare)))} only the encoder is known: D, reconstruction and the "
            "swap of the condition need an extraction network, and it is a part of a classifier."
        )
    if judge is None:
        notes.append("The swap of the condition was not judged: it needs a classifier.")
    return notes
