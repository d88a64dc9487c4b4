"""cdc-keras audit: how much of the category can be read from an extractor's T."""

from cdc_keras.audit import audit, summary
from cdc_keras.errors import UsageError


def main(values):
    """Audits `--model` and prints the table."""
    out = audit.folder(values.model, values.out)
    result = audit.measure(
        values.model,
        rivals=_rivals(values.rivals),
        classifier=values.classifier,
        data_dir=values.data_dir,
        limit=values.limit,
        seed=values.seed,
    )
    print(summary.text(result), flush=True)  # before anything is written, which may fail
    audit.write(result, out)
    print(f"audit.json, audit.md and audit.png are in {out}")


def _rivals(pairs):
    """Returns {name: place} of texts "name=place"."""
    rivals = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not (equals and place) or name in rivals:
            raise UsageError(f"--rivals are name=runs/... or name=zoo:<name>, each name once, not {pair!r}")
        rivals[name] = place
    return rivals
