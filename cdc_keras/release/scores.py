"""The scores of a record, computed again from its weights and the data."""

import dataclasses

from cdc_keras import zoo
from cdc_keras.choices import ZOO
from cdc_keras.data.load import load_dataset
from cdc_keras.errors import UserError
from cdc_keras.runs.evaluation import split_of
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_disentangler, load_trained


def evaluate_record(name, *, split="test", data_dir=None):
    """Returns the scores of a record of the zoo as {name: value}; nothing is written.

    Args:
        name: of the record, or the path of its folder.
        split: "test" or "validation", as the run cut it.
        data_dir: where the data are; TFDS' own default folder if not given.

    Raises:
        UserError: there is no such record, it has no scores, or the data are not there or not those it was trained on.
    """
    model = scored_model(name)
    dataset, config = load_data(zoo.info(name), data_dir)
    return score(model, split_of(dataset, split), config).check_finite().metrics


def scored_model(name):
    """Returns what is scored of a record: its `Disentangler`, or a classifier; arguments as for `evaluate_record`."""
    record, place = zoo.info(name), f"{ZOO}{name}"
    if record.kind == "classifier":
        return load_trained(place, "classifier").network
    if not record.has_disentangler:
        raise UserError(
            f"{name} is a part of a classifier and has no scores of its own; cdc-keras audit --model=zoo:{name} "
            "examines it"
        )
    return load_disentangler(place)


def load_data(record, data_dir=None):
    """Returns (dataset, config) of a zoo's `Record`: the data as its run saw them, and how it was trained.

    Raises:
        UserError: they are not there, or others.
    """
    config = dataclasses.replace(record.run_config(), data_dir=data_dir)
    dataset = load_dataset(config)
    if tuple(dataset.class_names) != record.class_names or len(dataset.train) != record.dataset.train_images:
        raise UserError(
            f"{record.name} was trained on {record.dataset.train_images} images of {len(record.class_names)} "
            f"categories of {config.dataset}, and {len(dataset.train)} of {len(dataset.class_names)} are here, or "
            "others by name; "
            "give the data_dir of the data as they were"
        )
    return dataset, config


def record_table(record, split, scores):
    """Returns the scores of a record, {name: value}, beside those of its card, as lines of text for a terminal."""
    cards = {metric.name: metric for metric in record.metrics if metric.split == split}
    lines = [f"{'score':24s} {'value':>12s} {'card':>12s} {'difference':>12s} {'to within':>12s}"]
    for name, value in scores.items():
        line = f"{name:24s} {value:12.6g}"
        if name in cards:
            card = cards[name]
            line += f" {card.value:12.6g} {value - card.value:12.2g} {card.tolerance:12.2g}"
        lines.append(line)
    return "\n".join(lines)
