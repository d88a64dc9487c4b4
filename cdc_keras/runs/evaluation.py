"""Evaluating a run: its scores on a split, and the files and pictures that go with them."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Sequence

import numpy as np

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Dataset, Split
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pasted import pasted_variants
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.errors import UserError
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.groups import Groups, groups_of, summary
from cdc_keras.runs.groups import table as group_rows
from cdc_keras.runs.pictures import draw_extractor, draw_strips, examples_to_show
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import Trained, load_trained, load_trainer
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.visualize import figures
from cdc_keras.weights import load_weights, make_folder, write_text

PASTING_SEED = 0  # of the backgrounds on which objects are pasted


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of a run, with all that it was measured from.

    Attributes:
        run, config, dataset, trainer: the run folder, its config, its data, and its `Classifier` or `Disentangler`.
        name: "<split>-<weights>", which stands in the names of the files.
        images: the split that was scored.
        plain: of a gated classifier, its plain counterpart, or None.
        scores: the JSON-ready dict that `evaluate` returns.
        confusion: (num_classes, num_classes) counts, row the true category; None for an extractor.
        groups: `groups.Groups` of the images, and
        of_groups: (groups, num_classes, num_classes) the counts of each; both None if there are none.
        variants: `pasted.PASTED` -> the images on other backgrounds; None if they were not asked for.
    """

    run: RunFolder
    config: RunConfig
    dataset: Dataset
    trainer: Classifier | Disentangler
    name: str
    images: Split
    plain: Trained | None
    scores: dict
    confusion: np.ndarray | None
    groups: Groups | None
    of_groups: np.ndarray | None
    variants: dict[str, Split] | None


def evaluate(
    model: str | os.PathLike,
    *,
    split: str = "test",
    weights: str = "last",
    data_dir: str | None = None,
    plain: str | os.PathLike | None = None,
    groups: Sequence[str] = (),
    backgrounds: bool = False,
    out: str | os.PathLike | None = None,
) -> dict:
    """Returns the scores of a run as a JSON-ready dict, having written them and the pictures into its folder.

    Args:
        model: path of the run folder.
        split: "test", or "validation", on which settings are chosen.
        weights: "last", the newest checkpoint, or "best", a classifier's best epoch on validation.
        data_dir: where the data are now, if not where they were in training.
        plain: for a gated classifier, its plain counterpart, a run folder or "zoo:<name>"; drawn beside it in the
            strips.
        groups: columns by whose values the images are scored in groups: of a folder's labels.csv, features of a TFDS
            set, or factors of `shapes`.
        backgrounds: also score the images on other backgrounds (`data.pasted`), where the masks of objects are known.
        out: folder for scores and pictures, if not that of the run.

    Raises:
        UserError: the folder holds no such run, or no checkpoint yet; or there are no such groups.
    """
    like = {"split": split, "weights": weights, "data_dir": data_dir, "plain": plain}
    evaluation = measure(model, groups=groups, backgrounds=backgrounds, **like)
    write(evaluation, out)
    return evaluation.scores


@keras_defaults()
def measure(
    model, *, split="test", weights="last", data_dir=None, plain=None, groups=(), backgrounds=False
) -> Evaluation:
    """Returns the `Evaluation` of a run and writes nothing; arguments and errors are those of `evaluate`."""
    run = RunFolder(model)
    if plain is not None:
        plain = load_trained(plain, role="plain network")
        _check_counterpart(run, plain)
    trainer, dataset, config = load_run(run, weights=weights, data_dir=data_dir, features=tuple(groups))
    images = split_of(dataset, split)
    in_groups = _groups(images, groups, config) if groups else None
    variants = _variants(images, dataset, config) if backgrounds else None
    scored = trainer if config.teacher is None else trainer.network  # a student is scored as any other classifier
    measured = score(scored, images, config, in_groups and in_groups.of_images).check_finite()
    scores = {
        "split": split,
        "weights": weights,
        "images": len(images),
        "step": trainer.steps_done,
        **measured.metrics,
        "images_per_second": measured.images_per_second,
    }
    if config.classifies:
        scores["most_confused"] = most_confused(measured.confusion, dataset.class_names)
    if groups:
        training = groups_of(dataset.train, groups) if set(groups) <= dataset.train.factors.keys() else None
        scores["groups"] = summary(in_groups, measured.of_groups, training)
    if backgrounds:
        top1 = {key: score(scored, variant, config).metrics["top1"] for key, variant in variants.items()}
        scores["backgrounds"] = {"top1": top1, "gap": top1["mixed_same"] - top1["mixed_rand"]}
    scores["environment"] = environment()
    name = f"{split}-{weights}"
    counts = measured.confusion, in_groups, measured.of_groups
    return Evaluation(run, config, dataset, trainer, name, images, plain, scores, *counts, variants)


@keras_defaults()
def write(evaluation: Evaluation, out=None) -> RunFolder:
    """Writes the scores of an `Evaluation`, its confusion matrix and its pictures, and returns the folder they are in.

    Args:
        evaluation: the `Evaluation`.
        out: folder to write to; that of the run by default.

    Raises:
        UserError: the folder cannot be written.
    """
    run, name, class_names = evaluation.run, evaluation.name, evaluation.dataset.class_names
    if out is not None:
        run = RunFolder(out)
        make_folder(run.pictures)
    write_text(run.path / f"evaluation-{name}.json", json.dumps(evaluation.scores, indent=2) + "\n")
    if not evaluation.config.classifies:
        draw_extractor(evaluation.trainer, examples_to_show(evaluation.images), class_names, run)
        return run
    counts = evaluation.confusion
    rows = [[true, *row] for true, row in zip(class_names, counts, strict=True)]
    head = ["true \\ predicted", *class_names]
    write_text(run.path / f"confusion-{name}.csv", _csv([head, *rows]))
    if (groups := evaluation.groups) is not None:
        rows = [
            [*values, true, *row]
            for values, of_group in zip(groups.values, evaluation.of_groups, strict=True)
            for true, row in zip(class_names, of_group, strict=True)
        ]
        write_text(run.path / f"confusion-{name}-groups.csv", _csv([[*groups.columns, *head], *rows]))
    figures.confusion_matrix(counts, class_names, run.pictures / f"confusion-{name}.png")
    if evaluation.config.gated and evaluation.config.gate_attention:
        plain = evaluation.plain and evaluation.plain.network
        draw_strips(plain, evaluation.trainer.network, examples_to_show(evaluation.images), run)
    return run


def _csv(rows):
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _groups(images, columns, config):
    """Returns the `Groups` of the images to score."""
    _check_can_be_looked_into(images, config, "groups")
    return groups_of(images, columns)


def _variants(images, dataset, config):
    """Returns the images to score on other backgrounds."""
    _check_can_be_looked_into(images, config, "backgrounds")
    if not images.in_memory:
        raise UserError("backgrounds are exchanged where all images fit into memory; leave backgrounds out")
    return pasted_variants(images, len(dataset.class_names), seed=PASTING_SEED)


def _check_can_be_looked_into(images, config, what):
    if not config.classifies:
        raise UserError(f"{what} are scored by a classifier, and this run is an extractor; leave {what} out")


def split_of(dataset, split):
    """Returns the "test" or "validation" split of a `Dataset`.

    Raises:
        UserError: it is empty.
    """
    images = {"test": dataset.test, "validation": dataset.validation}[split]
    if not len(images):
        raise UserError(f"the {split} split of {dataset.name} is empty; evaluate another with --split")
    return images


def load_run(run, *, weights="last", data_dir=None, features=()):
    """Returns (trainer, dataset, config) of a run folder, trained weights loaded.

    Args:
        run: a `RunFolder`.
        weights: "last" or "best", as for `evaluate`.
        data_dir: replaces that of the config.
        features: what else to read of the images of a TFDS set, into their factors.
    """
    trainer = load_trainer(run)
    config = run.config(data_dir=data_dir)
    dataset = load_dataset(config, features=features)
    run.check_data(dataset)
    if weights == "best":
        if not run.best_weights.is_file():
            raise UserError(f"{run.path} has no best epoch: it is no classifier, or had no validation images")
        load_weights(trainer.network, run.best_weights)
    return trainer, dataset, config


def most_confused(confusion, class_names, most=5):
    """Returns the pairs of categories that are confused most often, JSON-ready.

    Args:
        confusion: (num_classes, num_classes) counts, row the true category.
        class_names: one per category.
        most: how many pairs at most.
    """
    wrong = confusion * (1 - np.eye(len(confusion), dtype=np.int64))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(wrong, axis=None)[::-1][:most]]
    return [
        {"true": class_names[true], "predicted": class_names[predicted], "count": int(wrong[true, predicted])}
        for true, predicted in worst
        if wrong[true, predicted]
    ]


def table(scores):
    """Returns the scores as lines of text for a terminal."""
    shown = {k: v for k, v in scores.items() if v is not None and not isinstance(v, (dict, list))}
    lines = [
        f"{name:24s} {value:.5g}" if isinstance(value, float) else f"{name:24s} {value}"
        for name, value in shown.items()
    ]
    if scores.get("most_confused"):
        lines.append("most confused (true -> predicted):")
        for pair in scores["most_confused"]:
            lines.append("  " + " ".join(f"{pair['true']} -> {pair['predicted']}: {pair['count']}".split()))
    if "groups" in scores:
        head, rows = group_rows(scores["groups"])
        cells = [[str(cell) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["groups:"] + ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    if "backgrounds" in scores:
        lines += ["backgrounds:"] + [f"  {name:22s} {cell}" for name, cell in background_rows(scores["backgrounds"])]
    return "\n".join(lines)


def background_rows(found):
    """Returns the accuracies on other backgrounds, and the gap, as rows of text."""
    rows = [(name, f"{share:.2%}") for name, share in found["top1"].items()]
    return [*rows, ("gap, same - rand", f"{100 * found['gap']:+.2f} points")]


def _check_counterpart(run, plain):
    """Raises UserError unless `plain` is an ungated `Trained` of the same network and data as the run."""
    ours, theirs = run.config(), plain.config
    for name in ("task", "network", "dataset", "image_size"):
        if getattr(ours, name) != getattr(theirs, name):
            raise UserError(
                f"the plain network must be of the same {name}: it has {getattr(theirs, name)}, "
                f"{run.path} {getattr(ours, name)}"
            )
    if theirs.gated or not ours.gated:
        raise UserError(f"{run.path} is to be gated and its counterpart plain; they are not")
