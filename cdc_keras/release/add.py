"""Making a record: `add` turns a finished and evaluated run into a folder of the zoo."""

import dataclasses
import json
import os
import re
import shutil
import time

import numpy as np

from cdc_keras.audit import summary
from cdc_keras.config import PATHS
from cdc_keras.errors import UserError
from cdc_keras.release.card import card
from cdc_keras.release.golden import golden
from cdc_keras.release.verify import problems_of
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load, load_trainer
from cdc_keras.trainers.build import in_precision, untrained_disentangler
from cdc_keras.weights import fingerprint, save_weights, sha256, write_text
from cdc_keras.zoo import files as zoo_files
from cdc_keras.zoo.files import FolderZoo
from cdc_keras.zoo.loading import name_of_weights
from cdc_keras.zoo.record import (
    CARD,
    DECODER,
    DISENTANGLER,
    FLAGS,
    INDEX,
    PRESET,
    Record,
    Weights,
    check_name,
    tolerance,
)

PREPROCESSING = "uint8 / 127.5 - 1"
LICENCE = "Apache-2.0"
PICTURES = ("curves.png",)  # the others show images of the data set
NOT_SCORES = ("images_per_second",)  # of an evaluation: a float and no score
EVALUATION = re.compile(r"evaluation-(\w+)-last\.json")


def add(run_dir, name, *, more_seeds=(), paper=None):
    """Makes the record `name` of a run in the zoo's folder, and returns it.

    An audit in the run folder, made by `cdc-keras audit`, becomes part of the record.

    Args:
        run_dir: path of a finished run whose newest checkpoint was scored by cdc-keras evaluate.
        name: of the new record.
        more_seeds: paths of runs like it but for the seed; they count in the metrics.
        paper: the paper's value as text, if it has one.

    Raises:
        UserError: the run is not finished or not scored, its extractor is not in the zoo, the name is taken, or the
            audit is of other weights or beside networks that are not in the zoo.
    """
    zoo, run = _writable(), RunFolder(run_dir)
    check_name(name)
    if (zoo.path / name).exists() or name in zoo.index():
        raise UserError(f"the zoo {zoo} has a {name} already; choose another name")
    runs = [run, *map(RunFolder, more_seeds)]
    metrics = _metrics(runs)
    extractor = _extractor_in(zoo, run)
    folder = zoo.path / f".{name}.partial"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        record = _write(folder, zoo, name, run, extractor, metrics, paper)
        if problems := problems_of(FolderZoo(zoo.path, trusted=True), folder.name):
            raise UserError(f"the record of {run.path} does not hold: {'; '.join(problems)}")
        os.replace(folder, zoo.path / name)
    except OSError as error:
        raise UserError(f"cannot write {zoo.path / name}: {error.strerror}; free some space") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    index = zoo.index() | {name: sha256(zoo.path / name / PRESET)}
    write_text(zoo.path / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return record


def _writable():
    """Returns the zoo that records are added to."""
    zoo = zoo_files.current()
    if not isinstance(zoo, FolderZoo):
        raise UserError(f"records are added to a folder, and CDC_KERAS_ZOO is {zoo}; set it to a folder")
    if not os.environ.get("CDC_KERAS_ZOO") and not (zoo.path.parent / "pyproject.toml").is_file():
        raise UserError("the zoo of an installed package is not added to; set CDC_KERAS_ZOO to a folder of your own")
    return zoo


def _metrics(runs):
    """Returns the metrics of runs that differ in their seed, as dicts."""
    first, scores, images, seeds = None, {}, {}, []
    for run in runs:
        config = run.config()
        same = {k: v for k, v in config.without_paths().items() if k not in ("seed", "steps_per_call")}
        if not run.finished:
            raise UserError(f"{run.path} has not finished training; run its cdc-keras train command again")
        if config.seed in seeds or same != (first := first or same):
            raise UserError(f"{run.path} is to differ from {runs[0].path} in the seed and in nothing else")
        seeds.append(config.seed)
        for (split, name), (value, count) in _scores(run).items():
            scores.setdefault((split, name), []).append(value)
            images[split] = count
    if uneven := [split for (split, _), values in scores.items() if len(values) != len(runs)]:
        raise UserError(f"not all runs are scored on {uneven[0]}; run cdc-keras evaluate --split={uneven[0]} on each")
    return [
        {
            "name": name,
            "split": split,
            "value": values[0],
            "tolerance": tolerance(name, values[0], images=images[split], noisy=runs[0].config().context_noise > 0),
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "n": len(values),
            "seeds": seeds,
        }
        for (split, name), values in scores.items()
    ]


def _scores(run):
    """Returns {(split, name): (value, images)} of what scored a run's newest checkpoint; {} if no head is released."""
    scores, config = {}, run.config()
    if config.task == "extractor" and config.classifies:
        return scores
    for path in sorted(run.path.glob("evaluation-*.json")):
        match, evaluation = EVALUATION.fullmatch(path.name), json.loads(path.read_text(encoding="utf-8"))
        if match and evaluation["step"] == run.steps()[-1]:
            floats = {k: v for k, v in evaluation.items() if isinstance(v, float) and k not in NOT_SCORES}
            scores |= {(match[1], key): (value, evaluation["images"]) for key, value in floats.items()}
    if not scores:
        raise UserError(f"the newest checkpoint of {run.path} is not scored; run cdc-keras evaluate on it first")
    return scores


def _extractor_in(zoo, run):
    """Returns the name and sha256 of a gated run's extractor in the zoo, as a dict; None for what has none."""
    config = run.config()
    if not (config.gated and config.gate_attention):
        return None
    if config.gate_context != "own":
        raise UserError(f"{run.path} is a control, gated by a context that is {config.gate_context}; none is released")
    sha256_of_weights = run.notes()["extractor_sha256"]
    if name := name_of_weights(zoo, "extractor", sha256_of_weights):
        return {"name": name, "sha256": sha256_of_weights}
    raise UserError(f"the extractor that gates {run.path} is not in the zoo {zoo}; add {config.extractor} to it first")


def _write(folder, zoo, name, run, extractor, metrics, paper):
    """Writes all files of a record into an empty folder and returns the `Record`."""
    config, facts = run.config(), run.notes()
    path = folder / f"{config.task}.weights.h5"
    if config.task == "extractor":
        network = load(run.path)
        shutil.copyfile(run.extractor_weights, path)  # to the bit: gated classifiers know it by its sha256
        if not config.classifies:
            model = _disentangler(run)
            save_weights(model, folder / DISENTANGLER)
            save_weights(model.decoder, folder / DECODER)
    else:
        network = load_trainer(run).network
        save_weights(network, path)
    write_text(folder / FLAGS, _flags(run, extractor))
    for picture in PICTURES:
        if (run.pictures / picture).is_file():
            shutil.copyfile(run.pictures / picture, folder / picture)
    audit = _audit(zoo, run, sha256(path))
    if audit is not None:
        shutil.copyfile(run.path / summary.FIGURE, folder / summary.FIGURE)
    weights = zoo_files.file_of(path)
    files = {x.name: zoo_files.file_of(x) for x in sorted(folder.iterdir()) if x != path}
    values = {
        "name": name,
        "kind": config.task,
        "config": config.without_paths(),
        "class_names": facts["data"]["classes"],
        "dataset": {"name": config.dataset, "train_images": facts["train_images"]},
        "preprocessing": PREPROCESSING,
        "weights": dataclasses.asdict(Weights(**dataclasses.asdict(weights), file=path.name)),
        "files": {file: dataclasses.asdict(of) for file, of in files.items()},
        "parameters": network.count_params(),
        "fingerprint": fingerprint(network),
        "extractor": extractor,
        "metrics": metrics,
        "audit": audit and dataclasses.asdict(audit),
        "paper": paper,
        **{key: facts[key] for key in ("commit", "versions", "hardware", "hours", "epochs")},
        "seed": config.seed,
        "golden": dataclasses.asdict(golden(network)),
        "licence": LICENCE,
        "created": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    record = Record.from_json(json.dumps(values), folder / PRESET)
    write_text(folder / CARD, card(record))
    record = dataclasses.replace(record, files=record.files | {CARD: zoo_files.file_of(folder / CARD)})
    write_text(folder / PRESET, record.to_json())
    return record


def _disentangler(run):
    """Returns the `Disentangler` of an extractor run at its newest checkpoint, uncompiled: without optimizers."""
    trained, config = load_trainer(run), in_precision(run.config(), "float32")
    model = untrained_disentangler(config, len(run.notes()["data"]["classes"]))
    for name, networks in model.networks().items():
        for ours, theirs in zip(networks, trained.networks()[name], strict=True):
            ours.set_weights(theirs.get_weights())
    model.steps.assign(trained.steps)
    return model


def _audit(zoo, run, weights_sha256):
    """Returns the `Audit` of a run, None if there is none."""
    path = run.path / summary.NUMBERS
    if not path.is_file():
        return None
    result, again = summary.load_result(path), f"run cdc-keras audit --model={run.path} again"
    if result.get("extractor_sha256") != weights_sha256:
        raise UserError(f"{path} is the audit of other weights; {again}")
    if not (run.path / summary.FIGURE).is_file():
        raise UserError(f"{run.path} has {summary.NUMBERS} without {summary.FIGURE}; {again}")
    audit = summary.audit_of(result)
    for rival, sha256_of_weights in audit.rivals.items():
        if not name_of_weights(zoo, "extractor", sha256_of_weights):
            raise UserError(f"the rival {rival} of {path} is not in the zoo {zoo}; add it first, or audit without it")
    if audit.classifier and not name_of_weights(zoo, "classifier", audit.classifier):
        raise UserError(
            f"the classifier of {path} is not in the zoo {zoo}; add it first, and audit with it as "
            "--classifier=zoo:<name>: that of a run folder is known by its checkpoint alone"
        )
    return audit


def _flags(run, extractor):
    """Returns a run's flagfile without the places on the machine it was trained on."""
    lines = []
    for line in (run.path / "flags.txt").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        setting = line.removeprefix("--").split("=")[0]
        if setting == "extractor":
            lines.append(f"# --extractor=<a run folder with the weights of {extractor['name']}>")
        elif setting == "teacher":
            lines.append("# --teacher=<the run folder of the teacher>")
        elif line.startswith("--") and setting not in PATHS:
            lines.append(line)
    return "\n".join(lines) + "\n"
