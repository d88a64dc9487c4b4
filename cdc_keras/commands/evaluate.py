"""cdc-keras evaluate: the scores of a run, written into its folder, or of a released model, beside its card."""

from cdc_keras.choices import record_name
from cdc_keras.errors import UsageError, UserError
from cdc_keras.release.scores import evaluate_record, record_table
from cdc_keras.runs import evaluation
from cdc_keras.zoo.loading import info
from cdc_keras.zoo.record import wrong_scores


def main(values):
    """Scores `--model` and prints the table.

    Raises:
        UserError: a released model does not reach the scores on its card.
    """
    name = record_name(values.model)
    if name is not None:
        _evaluate_record(name, values)
        return
    measured = evaluation.measure(
        values.model,
        split=values.split,
        weights=values.weights,
        data_dir=values.data_dir,
        plain=values.plain,
        groups=values.groups,
        backgrounds=values.backgrounds,
    )
    print(evaluation.table(measured.scores), flush=True)  # before anything is written, which may fail
    print(f"pictures and scores are in {evaluation.write(measured, values.out).path}")


def _evaluate_record(name, values):
    if (
        values["weights"].present
        or values.plain is not None
        or values.out is not None
        or values.groups
        or values.backgrounds
    ):
        raise UsageError(
            "--weights, --plain, --groups, --backgrounds and --out are for a run folder; leave them out with zoo:<name>"
        )
    record = info(name)
    scores = evaluate_record(name, split=values.split, data_dir=values.data_dir)
    print(record_table(record, values.split, scores))
    if wrong := wrong_scores(record, values.split, scores):
        raise UserError("; ".join(wrong))
