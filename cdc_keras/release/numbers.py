"""The numbers on a record's card, computed again from its weights and the data: scores, and the audit."""

import sys
import tempfile

from cdc_keras.audit.audit import audit
from cdc_keras.choices import ZOO
from cdc_keras.errors import UserError
from cdc_keras.release.scores import data_of, open_record
from cdc_keras.runs import evaluation
from cdc_keras.zoo.loading import name_of_weights, read_record
from cdc_keras.zoo.record import PRESET, wrong_scores


def wrong_numbers(zoo, name, data_dir=None):
    """Returns which numbers of a record do not come out again, as sentences.

    Args:
        zoo: the current `FolderZoo` or `UrlZoo`.
        name: of a record in it that is otherwise whole.
        data_dir: where the data are; TFDS' own default folder if not given.
    """
    record = read_record(zoo, name)
    there = {"scores": record.metrics, "audit": record.audit}
    what = " and ".join(key for key, value in there.items() if value)
    if not what:
        return []
    try:
        dataset, config = data_of(record, data_dir)
    except UserError as error:
        why = " ".join(str(error).split())
        return [f"{name}: {what} can not be computed again: {why}; say where the data are by data_dir (--data_dir)"]
    problems = []
    try:
        if record.metrics:
            model = open_record(name)
        for split in dict.fromkeys(metric.split for metric in record.metrics):
            _tell(name, f"scores on {split}")
            problems += wrong_scores(record, split, evaluation.score(model, dataset, split, config))
        if record.audit is not None:
            _tell(name, "audit")
            problems += _wrong_audit(name, record.audit, _audited_again(zoo, name, record.audit, data_dir))
    except UserError as error:
        problems.append(f"{name}: {what} can not be computed again: {error}")
    return problems


def _audited_again(zoo, name, known, data_dir):
    """Returns what `audit.audit` returns with the settings of a known `Audit`."""
    rivals = {rival: _source(zoo, "extractor", sha256) for rival, sha256 in known.rivals.items()}
    classifier = known.classifier and _source(zoo, "classifier", known.classifier)
    with tempfile.TemporaryDirectory() as out:
        return audit(
            f"{ZOO}{name}",
            rivals=rivals,
            classifier=classifier,
            data_dir=data_dir,
            out=out,
            limit=known.limit,
            seed=known.seed,
        )


def _source(zoo, kind, sha256):
    """Returns "zoo:<name>" of the weights that an audit names by their sha256."""
    name = name_of_weights(zoo, kind, sha256)
    if name is None:
        raise UserError(f"the zoo {zoo} has no {kind} whose weights have sha256 {sha256}; add it")
    return f"{ZOO}{name}"


def _wrong_audit(name, known, found):
    """Returns where the audit `found`, a dict, is not the known `Audit`, as sentences."""
    numbers = {}  # {what: (said, came, tolerance)}
    for key in ("probe_images", "scored_images"):
        numbers[f"audit.{key}"] = getattr(known, key), found[key], 0
    for source in known.erased | found["erased"]:
        pair = known.erased.get(source), found["erased"].get(source)
        numbers[f"audit.erased.{source}"] = *pair, known.tolerance.erased
    readings = {(r["target"], r["source"], r["reader"]): r for r in found["readings"]}
    rows = {(r.target, r.source, r.reader): r for r in known.readings}
    for row in rows | readings:
        target, source, reader = row
        place = f"audit: {target} from {source} by {reader}"
        if row not in rows or row not in readings:
            numbers[place] = ("there", None, 0) if row in rows else (None, "there", 0)
            continue
        within = known.tolerance.of(rows[row])
        for key, allowed in {"accuracy": within, "low": 2 * within, "high": 2 * within, "chance": 1e-6}.items():
            numbers[f"{place}, {key}"] = getattr(rows[row], key), readings[row][key], allowed
    return [
        f"{name}: {what} comes out as {_shown(came)}, and {PRESET} says {_shown(said)}"
        + (f" to within {allowed:.2g}" if allowed else "")
        for what, (said, came, allowed) in numbers.items()
        if said != came and (None in (said, came) or not abs(said - came) <= allowed)
    ]


def _shown(value):
    return "missing" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def _tell(name, what):
    print(f"verifying {name}: {what}", file=sys.stderr, flush=True)
