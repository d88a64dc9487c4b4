"""The numbers on a record's card, computed again from its weights and the data: scores, and the audit."""

import sys
import tempfile

from cdc_keras.audit.audit import audit
from cdc_keras.audit.summary import audit_of
from cdc_keras.choices import ZOO
from cdc_keras.errors import UserError
from cdc_keras.release.scores import load_data, scored_model
from cdc_keras.runs.evaluation import split_of
from cdc_keras.runs.scoring import score
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
    kinds = " and ".join(kind for kind, value in {"scores": record.metrics, "audit": record.audit}.items() if value)
    if not kinds:
        return []
    try:
        dataset, config = load_data(record, data_dir)
    except UserError as error:
        why = " ".join(str(error).split())
        return [f"{name}: {kinds} cannot be computed again: {why}; say where the data are by data_dir (--data_dir)"]
    problems = []
    try:
        if record.metrics:
            model = scored_model(name)
        for split in dict.fromkeys(metric.split for metric in record.metrics):
            _tell(name, f"scores on {split}")
            scores = score(model, split_of(dataset, split), config).check_finite()
            problems += wrong_scores(record, split, scores.metrics)
        if record.audit is not None:
            _tell(name, "audit")
            problems += _wrong_audit(name, record.audit, _audited_again(zoo, name, record.audit, data_dir))
    except UserError as error:
        problems.append(f"{name}: {kinds} cannot be computed again: {error}")
    return problems


def _audited_again(zoo, name, stated, data_dir):
    """Returns the `Audit` that comes out with the settings of the stated one."""
    rivals = {rival: _place(zoo, "extractor", sha256) for rival, sha256 in stated.rivals.items()}
    classifier = stated.classifier and _place(zoo, "classifier", stated.classifier)
    with tempfile.TemporaryDirectory() as out:
        result = audit(
            f"{ZOO}{name}",
            rivals=rivals,
            classifier=classifier,
            data_dir=data_dir,
            out=out,
            limit=stated.limit,
            seed=stated.seed,
        )
    return audit_of(result)


def _place(zoo, kind, sha256):
    """Returns "zoo:<name>" of the weights that an audit names by their sha256."""
    name = name_of_weights(zoo, kind, sha256)
    if name is None:
        raise UserError(f"the zoo {zoo} has no {kind} whose weights have sha256 {sha256}; add it")
    return f"{ZOO}{name}"


def _wrong_audit(name, stated, ours):
    """Returns where the `Audit` ours is not the stated one, as sentences."""
    numbers = {}  # {its name: (stated, ours, tolerance)}
    for key in ("probe_images", "scored_images"):
        numbers[f"audit.{key}"] = getattr(stated, key), getattr(ours, key), 0
    for features in stated.erased | ours.erased:
        pair = stated.erased.get(features), ours.erased.get(features)
        numbers[f"audit.erased.{features}"] = *pair, stated.tolerance.erased
    before, after = ({finding.key: finding for finding in x.findings} for x in (stated, ours))
    for key in before | after:
        place = "audit: {} from {} by {}".format(*key)
        if key not in before or key not in after:
            numbers[place] = ("there", None, 0) if key in before else (None, "there", 0)
            continue
        within = stated.tolerance.of(before[key])
        for number, allowed in {"accuracy": within, "low": 2 * within, "high": 2 * within, "chance": 1e-6}.items():
            numbers[f"{place}, {number}"] = getattr(before[key], number), getattr(after[key], number), allowed
    return [
        f"{name}: {number} comes out as {_shown(came)}, and {PRESET} says {_shown(expected)}"
        + (f" to within {allowed:.2g}" if allowed else "")
        for number, (expected, came, allowed) in numbers.items()
        if expected != came and (None in (expected, came) or not abs(expected - came) <= allowed)
    ]


def _shown(value):
    return "missing" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def _tell(name, what):
    print(f"verifying {name}: {what}", file=sys.stderr, flush=True)
