"""Accuracy by group: where more than the category is known of the images, which of them a classifier fails on."""

import dataclasses

import numpy as np

from cdc_keras.errors import UserError

MOST = 50  # values of a column, and groups


@dataclasses.dataclass(frozen=True)
class Groups:
    """A split in groups: images with the same values in some columns.

    Attributes:
        columns: their names.
        values: the values of each group, a tuple of texts, sorted.
        of_images: (N,) which group an image is in.
    """

    columns: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    of_images: np.ndarray

    def names(self):
        """Returns a name for each group, as "bird 1, place 0"."""
        return [", ".join(f"{c} {v}" for c, v in zip(self.columns, values, strict=True)) for values in self.values]


def groups_of(split, columns):
    """Returns the `Groups` of a split.

    Args:
        split: a `Split` or `StreamSplit` with these columns among its factors.
        columns: names, one or more.

    Raises:
        UserError: there is no such column, or it has too many values to be one of groups.
    """
    for name in columns:
        if name not in split.factors or split.factors[name].ndim > 1:
            known = ", ".join(name for name, values in split.factors.items() if values.ndim == 1) or "none"
            raise UserError(f"there is no column {name!r} to make groups by; known of these images: {known}")
        if (count := len(np.unique(split.factors[name]))) > MOST:
            raise UserError(f"{name} has {count} values; groups are made by columns of at most {MOST}")
    rows = list(zip(*(map(str, split.factors[name]) for name in columns), strict=True))
    values = sorted(set(rows))
    if len(values) > MOST:
        raise UserError(f"{', '.join(columns)} make {len(values)} groups, and at most {MOST} are scored; give fewer")
    place = {of_group: i for i, of_group in enumerate(values)}
    return Groups(tuple(columns), tuple(values), np.array([place[row] for row in rows]))


def summary(groups, confusion, training=None):
    """Returns the accuracy of each group, of the worst, and the average weighted as in training, JSON-ready.

    Args:
        groups: the `Groups` of the scored split.
        confusion: (groups, num_classes, num_classes) counts, row the true category.
        training: the `Groups` of the training split; None where its columns are not known.
    """
    counts = confusion.sum(axis=(1, 2))
    accuracy = np.trace(confusion, axis1=1, axis2=2) / counts
    trained = [0] * len(counts)
    if training is not None:
        in_training = dict(zip(training.values, np.bincount(training.of_images), strict=True))
        trained = [int(in_training.get(values, 0)) for values in groups.values]
    found = {
        "columns": list(groups.columns),
        "groups": [
            {"values": list(values), "images": int(n), "top1": float(share), "training_images": seen}
            for values, n, share, seen in zip(groups.values, counts, accuracy, trained, strict=True)
        ],
        "worst_group": {"name": groups.names()[int(accuracy.argmin())], "top1": float(accuracy.min())},
    }
    if sum(trained):
        found["weighted_as_in_training"] = float(np.average(accuracy, weights=trained))
    return found


def table(found):
    """Returns what `summary` returned as rows of text: a head, a row for each group, then worst group and average."""
    head = (*found["columns"], "images", "in training", "top-1")
    blank = [""] * (len(found["columns"]) + 1)
    rows = [(*x["values"], x["images"], x["training_images"], f"{x['top1']:.2%}") for x in found["groups"]]
    rows.append(("worst group", *blank, f"{found['worst_group']['top1']:.2%}"))
    if "weighted_as_in_training" in found:
        rows.append(("weighted as in training", *blank, f"{found['weighted_as_in_training']:.2%}"))
    return head, rows
