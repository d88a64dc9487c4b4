"""Is T free of the category? Fresh classifiers, trained on T alone, say how much of it can still be read.

The discriminator can not say: it is the very player that the extractor learned to fool. What a probe that never met the
extractor reads on unseen images is in T; that it finds nothing proves nothing beyond its own strength, so the same
probes also read the category from pixels and from rivals' T, and the known nuisance factors, which T is meant to keep.

python -m cdc_keras.audit --run_dir=runs/... writes one table, one figure, and the numbers.
"""

import dataclasses
import json
import pathlib
import re

import keras
import numpy as np

from cdc_keras.audit import report
from cdc_keras.audit.examination import Examination
from cdc_keras.audit.probes import PROBES
from cdc_keras.choices import ZOO
from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Split
from cdc_keras.data.load import load_dataset
from cdc_keras.data.split import stratified_cut
from cdc_keras.errors import UserError
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load_disentangler, load_trained
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.weights import write_text
from cdc_keras.zoo.findings import SOURCES, Audit, words

LIMIT = 10_000  # images
RIVAL = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Subject:
    """An extractor under audit.

    Attributes:
        network: functional model, images in [-1, 1] -> T.
        config: the `RunConfig` it was trained with.
        class_names: names of the categories.
        sha256: of its weights' file.
        disentangler: with decoder and discriminator, None for one that was trained in a classifier (DM).
    """

    network: keras.Model
    config: RunConfig
    class_names: tuple[str, ...]
    sha256: str
    disentangler: Disentangler | None


def audit(source, *, rivals=None, classifier=None, data_dir=None, out=None, limit=LIMIT, seed=0):
    """Returns the audit of an extractor as a JSON-ready dict, having written audit.json, audit.md and audit.png.

    The test images, which neither extractor nor discriminator saw, are cut into two halves, every class in proportion:
    probes are trained on one half, everything is scored on the other. `readings` in the result are `Reading`s as dicts:
    what probes read of the category, and of `NUISANCES` where they are known, from T, rivals' T, pixels, T with
    shuffled training labels and T after linear erasure of the category; what D reads from T; and what the classifier
    says of T decoded under its own and under another category.

    The erasure is fitted twice. Fitted on the probes' images it is the floor: a linear probe learns nothing from them.
    Fitted on images the extractor was trained on, as its adversary was, it shows what is left on new images.

    Args:
        source: path of a finished extractor run, or "zoo:<name>".
        rivals: {name: source} of extractors of the same images that are probed beside it.
        classifier: source of a classifier of the same images, to judge what is decoded; none by default.
        data_dir: where the data are now, if not where they were in training.
        out: folder for the three files; the run folder by default.
        limit: at most this many test images, and so many of training for the erasure, drawn at random.
        seed: decides which images are taken, their halves, and everything random in the probes.

    Raises:
        UserError: for anything a person can put right, in one sentence.
    """
    out = folder(source, out)
    subjects = {"context": _open(source)} | {_rival(name): _open(path) for name, path in (rivals or {}).items()}
    judge = load_trained(classifier, "classifier") if classifier is not None else None
    config = dataclasses.replace(subjects["context"].config, data_dir=data_dir or subjects["context"].config.data_dir)
    dataset = load_dataset(config)
    if not str(source).startswith(ZOO):
        RunFolder(source).check_data(dataset)
    for path, other in [*zip((rivals or {}).values(), list(subjects.values())[1:], strict=True), (classifier, judge)]:
        if other is not None:
            _check_same_test(path, other, subjects["context"], dataset, config)
    parts = halves(dataset, limit, seed)

    examined = Examination(*parts, dataset.train.sample(seed, limit), len(dataset.class_names), seed)
    examined.run(subjects, judge and judge.network)
    found = Audit(
        seed=seed,
        limit=limit,
        rivals={name: subject.sha256 for name, subject in subjects.items() if name != "context"},
        classifier=judge and judge.sha256,
        probe_images=len(parts[0]),
        scored_images=len(parts[1]),
        erased=examined.erased,
        readings=tuple(examined.readings),
    )
    result = {
        "dataset": dataset.name,
        "image_size": dataset.image_size,
        "extractor_sha256": subjects["context"].sha256,
        **dataclasses.asdict(found),
        "reconstruction_mse": examined.errors,
        "probes": PROBES,
        "notes": _notes(subjects, judge),
        "environment": environment(),
    }
    result = json.loads(json.dumps(result))
    report.draw(found.readings, out / "audit.png")
    write_text(out / "audit.md", report.text(result, found, "audit.png"))
    write_text(out / "audit.json", json.dumps(result, indent=2) + "\n")
    return result


def _open(source):
    """Returns the `Subject` of a source."""
    found = load_trained(source, "extractor")
    disentangler = None if found.config.classifies else load_disentangler(source)
    return Subject(found.network, found.config, found.class_names, found.sha256, disentangler)


def folder(source, out):
    """Returns the folder to write to, made if it is not there."""
    if out is None and str(source).startswith(ZOO):
        raise UserError(f"{source} is no folder to write the audit to; say where with --out")
    path = RunFolder(source if out is None else out).path
    if out is None:
        RunFolder(source).config()  # a folder that is none is not made
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can not write the audit to {path}: {error.strerror}; choose another folder") from error
    return pathlib.Path(path)


def _rival(name):
    if not RIVAL.fullmatch(name) or name in SOURCES:
        taken = ", ".join(SOURCES)
        raise UserError(
            f"a rival's name is of a-z, 0-9, '_', '.' and '-' and none of {taken}, not {name!r}; choose another"
        )
    return name


def _check_same_test(source, other, subject, dataset, config):
    """Raises UserError unless `other`, a trained network, has the subject's images and categories and no test image."""
    for name in ("dataset", "image_size"):
        ours, theirs = getattr(subject.config, name), getattr(other.config, name)
        if ours != theirs:
            raise UserError(
                f"{source} was trained with {name} {theirs}, the extractor with {ours}; give one of the same"
            )
    if other.class_names != tuple(dataset.class_names):
        raise UserError(f"{source} was trained on other categories than the extractor; give one of the same")
    if other.config.seed == subject.config.seed:
        return
    # Where a data set has no test split of its own, the seed cuts it.
    test = load_dataset(dataclasses.replace(other.config, data_dir=config.data_dir)).test
    if not isinstance(test, Split) or not np.array_equal(test.images, dataset.test.images):
        raise UserError(
            f"{source} may have been trained on images that the extractor's seed {subject.config.seed} holds out for "
            f"testing, its own seed being {other.config.seed}; give one of the same seed"
        )


def halves(dataset, limit, seed, split="test"):
    """Returns two `Split`s of at most `limit` images together, every class in proportion: for probes, and to score.

    Args:
        dataset: a `Dataset`.
        limit: at most so many images, drawn at random.
        seed: of the draw and of the cut.
        split: "test", or "validation", on which settings are chosen.
    """
    part, classes = getattr(dataset, split).sample(seed, limit), len(dataset.class_names)
    if len(part) < 2 * classes:
        raise UserError(
            f"{dataset.name} has {len(part)} {split} images for {classes} categories; two of each are needed"
        )
    return tuple(part.take(rows) for rows in stratified_cut(part.labels, len(part) // 2, seed))


def _notes(subjects, judge):
    """Returns what could not be measured and why, as sentences."""
    notes = []
    if bare := [name for name, subject in subjects.items() if subject.disentangler is None]:
        notes.append(
            f"Of {', '.join(map(words, bare))} only the encoder is known: D, reconstruction and the swap of the "
            "condition need an extraction network, and it is a part of a classifier."
        )
    if judge is None:
        notes.append("The swap of the condition was not judged: it needs a classifier.")
    return notes
