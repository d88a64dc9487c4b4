"""Scoring a run folder, accuracy, loss, confusion, throughput and the pictures that go with them; or a zoo's record."""

import dataclasses
import json
import time

import numpy as np

from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import Dataset
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import scale, stored_batches
from cdc_keras.errors import UserError
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load_trained, load_trainer
from cdc_keras.runs.training import (
    EVALUATION_BATCH,
    draw_extractor,
    draw_strips,
    evaluate_split,
    examples_to_show,
    steps_done,
)
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.visualize import figures
from cdc_keras.weights import load_weights, write_text


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
    """

    run: RunFolder
    config: RunConfig
    dataset: Dataset
    trainer: object
    name: str
    images: object
    plain: object
    scores: dict
    confusion: np.ndarray | None


def evaluate(model, *, split="test", weights="last", data_dir=None, plain=None):
    """Returns the scores of a run as a JSON-ready dict, having written them and the pictures into its folder.

    Args:
        model: path of the run folder.
        split: "test", or "validation", on which settings are chosen.
        weights: "last", the newest checkpoint, or "best", a classifier's best epoch on validation.
        data_dir: where the data are now, if not where they were in training.
        plain: for a gated classifier, its plain counterpart, drawn beside it in the strips.

    Raises:
        UserError: the folder holds no such run, or no checkpoint yet.
    """
    evaluation = measure(model, split=split, weights=weights, data_dir=data_dir, plain=plain)
    write(evaluation)
    return evaluation.scores


def measure(model, *, split="test", weights="last", data_dir=None, plain=None):
    """Returns the `Evaluation` of a run and writes nothing; arguments and errors are those of `evaluate`."""
    run = RunFolder(model)
    if plain is not None:
        _check_counterpart(run, RunFolder(plain))
        plain = load_trained(plain, "classifier")
    trainer, dataset, config = load_run(run, weights=weights, data_dir=data_dir)
    images, name = _split(dataset, split), f"{split}-{weights}"
    scores = {"split": split, "weights": weights, "images": len(images), "step": steps_done(trainer)}
    counts = None
    if config.classifies:
        logits, labels, rate = logits_of(trainer.network, images)
        counts = confusion(logits.argmax(-1), labels, len(dataset.class_names))
        scores |= {**classification_scores(logits, labels), "images_per_second": rate}
        scores["most_confused"] = _most_confused(counts, dataset.class_names)
    else:
        scores |= evaluate_split(trainer, images, config)
        scores["images_per_second"] = logits_of(trainer.encoder, images)[2]
    scores["environment"] = environment()
    return Evaluation(run, config, dataset, trainer, name, images, plain, scores, counts)


def write(evaluation):
    """Writes the scores of an `Evaluation`, its confusion matrix and its pictures into the folder of the run."""
    run, name, class_names = evaluation.run, evaluation.name, evaluation.dataset.class_names
    write_text(run.path / f"evaluation-{name}.json", json.dumps(evaluation.scores, indent=2) + "\n")
    if not evaluation.config.classifies:
        draw_extractor(evaluation.trainer, examples_to_show(evaluation.images), class_names, run)
        return
    header = ",".join(["true \\ predicted", *class_names])
    rows = [",".join([true, *map(str, row)]) for true, row in zip(class_names, evaluation.confusion, strict=True)]
    write_text(run.path / f"confusion-{name}.csv", "\n".join([header, *rows]) + "\n")
    figures.confusion_matrix(evaluation.confusion, class_names, run.pictures / f"confusion-{name}.png")
    if evaluation.config.gated and evaluation.config.gate_attention:
        plain = evaluation.plain and evaluation.plain.network
        draw_strips(plain, evaluation.trainer.network, examples_to_show(evaluation.images), run)


def score(model, dataset, split, config):
    """Returns the scores of a model on a split as {name: value}.

    Args:
        model: `Disentangler` or `Classifier`.
        dataset: a `Dataset`.
        split: "test" or "validation".
        config: the `RunConfig` the model was trained with.
    """
    scored = _split(dataset, split)
    if isinstance(model, Classifier):
        return classification_scores(*logits_of(model.network, scored)[:2])
    return evaluate_split(model, scored, config)


def _split(dataset, split):
    scored = {"test": dataset.test, "validation": dataset.validation}[split]
    if not len(scored):
        raise UserError(f"the {split} split of {dataset.name} is empty; evaluate another with --split")
    return scored


def load_run(run, *, weights="last", data_dir=None):
    """Returns (model, dataset, config) of a run folder, trained weights loaded.

    Args:
        run: a `RunFolder`.
        weights: "last" or "best", as for `evaluate`.
        data_dir: replaces that of the config.
    """
    model = load_trainer(run)
    config = run.config(data_dir=data_dir)
    dataset = load_dataset(config)
    run.check_data(dataset)
    if weights == "best":
        if not run.best_weights.is_file():
            raise UserError(f"{run.path} has no best epoch: it is no classifier, or had no validation images")
        load_weights(model.network, run.best_weights)
    return model, dataset, config


def logits_of(network, split):
    """Returns (outputs, labels, images per second) of `network` over a split, in inference mode.

    The rate leaves out the first batch, which compiles; it is None if there is no other.

    Args:
        network: functional model of images in [-1, 1].
        split: a `Split` or `StreamSplit`.
    """
    outputs, labels, started, counted = [], [], None, 0
    for images, batch_labels in stored_batches(split, EVALUATION_BATCH):
        outputs.append(np.asarray(network.predict_on_batch(np.asarray(scale(images)))))
        labels.append(batch_labels)
        if started is None:
            started = time.monotonic()
        else:
            counted += len(images)
    rate = counted / (time.monotonic() - started) if counted else None
    return np.concatenate(outputs), np.concatenate(labels), rate


def classification_scores(logits, labels):
    """Returns {"top1", "top5", "loss"}: shares in [0, 1] and the mean cross-entropy in nats.

    Args:
        logits: (N, classes).
        labels: (N,) integer categories.
    """
    if not np.isfinite(logits).all():
        raise UserError("the network's outputs are not finite, so they can not be scored; it was trained to NaN")
    logits = logits.astype(np.float64)
    log_z = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    correct = np.take_along_axis(logits, labels[:, None], -1)[:, 0]
    rank = (logits > correct[:, None]).sum(-1)
    return {
        "top1": float(np.mean(logits.argmax(-1) == labels)),
        "top5": float(np.mean(rank < 5)),
        "loss": float(np.mean(log_z - correct)),
    }


def confusion(predictions, labels, classes):
    """Returns (classes, classes) counts: row the true category, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def table(scores):
    """Returns the scores as lines of text for a terminal."""
    shown = {k: v for k, v in scores.items() if not isinstance(v, (dict, list))}
    lines = [
        f"{name:24s} {value:.5g}" if isinstance(value, float) else f"{name:24s} {value}"
        for name, value in shown.items()
    ]
    if scores.get("most_confused"):
        lines.append("most confused (true -> predicted):")
        lines += [f"  {pair['true']} -> {pair['predicted']}: {pair['count']}" for pair in scores["most_confused"]]
    return "\n".join(lines)


def _most_confused(counts, class_names):
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(wrong, axis=None)[::-1][:5]]
    return [
        {"true": class_names[t], "predicted": class_names[p], "count": int(wrong[t, p])}
        for t, p in worst
        if wrong[t, p]
    ]


def _check_counterpart(run, plain):
    """Raises UserError unless `plain` is an ungated run of the same network and data."""
    ours, theirs = run.config(), plain.config()
    for name in ("task", "network", "dataset", "image_size"):
        if getattr(ours, name) != getattr(theirs, name):
            raise UserError(
                f"the plain run must be of the same {name}: {plain.path} has {getattr(theirs, name)}, "
                f"{run.path} {getattr(ours, name)}"
            )
    if theirs.gated or not ours.gated:
        raise UserError(f"{run.path} is to be gated and {plain.path} plain; they are not")
