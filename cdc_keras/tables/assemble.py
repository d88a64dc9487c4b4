"""From the records of runs to a table: numbers with their spread, Markdown, and a plot."""

import json

import numpy as np

from cdc_keras.tables.statistics import paired, summary
from cdc_keras.tables.systems import STANDS_FOR, TABLES, Row

# Beside which a gated network is set, if not beside all others: the same without a gate.
WITHOUT = {"se_ours": "se", "cbam_ours": "cbam"}


def readings(record):
    """Returns {name: value} of one record, accuracies in percent.

    `last`: test top-1 after the last epoch, `chosen` after the epoch that is best on validation, `best` after the one
    best on test, which is what the paper reports; `top5` after the last; `validation`: top-1 on validation after the
    last; `corrupted`: mean over all corruptions and severities; `gap`: mixed-same minus mixed-rand of the backgrounds
    challenge, and each variant by its name.
    """
    history = record["history"]
    test = history["test_top1"]
    found = {"last": test[-1], "best": max(test), "top5": history["test_top5"][-1]}
    if "val_top1" in history:
        found["chosen"] = test[int(np.argmax(history["val_top1"]))]
        found["validation"] = history["val_top1"][-1]
    if record["corrupted"] is not None:
        found["corrupted"] = float(np.mean(list(record["corrupted"]["top1"].values())))
    if record["backgrounds"] is not None:
        top1 = record["backgrounds"]["top1"]
        found |= {**top1, "gap": top1["mixed_same"] - top1["mixed_rand"]}
    return {name: 100 * value for name, value in found.items()}


def assemble(number, dataset, rows, records, *, recipe, smoke=False):
    """Returns a table as a JSON-ready dict, all that Markdown and plot are made of.

    Args:
        number: of the table.
        dataset: its name.
        rows: the `Row`s it has; those without a record yet stay empty.
        records: of the runs of these rows, all of one recipe, as `scores.record` returned them.
        recipe: the settings that all rows share, as {name: value}.
        smoke: whether the runs are far too short to mean anything.
    """
    by_row = {row.name: [r for r in records if r["row"] == row.name] for row in rows}
    values = {name: {r["settings"]["seed"]: readings(r) for r in found} for name, found in by_row.items()}

    def of(row, reading):
        return {seed: v[reading] for seed, v in values.get(row, {}).items() if reading in v}

    table = []
    for row in rows:
        found, plain = by_row[row.name], Row(row.backbone, "plain").name
        names = sorted({reading for v in values[row.name].values() for reading in v})
        entry = {"row": row.name, "title": row.title, "seeds": sorted(values[row.name])}
        entry["paper"], entry["paper_gain"] = _paper(number, dataset, row)
        entry["readings"] = {reading: _published(summary(of(row.name, reading).values())) for reading in names}
        if row.system != "plain":
            gains = {reading: paired(of(row.name, reading), of(plain, reading)) for reading in names}
            entry["gains"] = {reading: _published(gain) for reading, gain in gains.items() if gain is not None}
        if found:
            entry |= {key: found[0][key] for key in ("parameters", "trainable_parameters")}
            entry["images_per_second"] = float(np.median([r["images_per_second"] for r in found]))
            entry["hours"] = sum(r["hours"] for r in found)
            entry["hardware"] = sorted({r["hardware"] for r in found})
            entry["commits"] = sorted({commit for r in found for commit in r["commits"]})
            gates = {r["settings"]["seed"]: r["gate"] for r in found if r["gate"] is not None}
            entry["gate"] = _gates(list(gates.values()))
            entry["gate_losses"] = _losses(gates)
            untrained = found[0]["settings"].get("gate_context") == "untrained"
            entry["contexts"] = [] if untrained else _each(r["context"] for r in found if r["context"])
            entry["teachers"] = _each(r["teacher"] for r in found if r["teacher"])
        table.append(entry)
    differences = []
    for ours in (row for row in rows if row.system == "ours" or row.system in WITHOUT):
        for row in rows:
            if row.backbone == ours.backbone and row.system == WITHOUT.get(ours.system, row.system) and row != ours:
                difference = _published(paired(of(ours.name, "last"), of(row.name, "last")))
                differences.append({"row": ours.name, "minus": row.name, "last": difference})
    used = [r for found in by_row.values() for r in found]
    return {
        "table": number,
        "title": TABLES[number].title,
        "dataset": dataset,
        "smoke": smoke,
        "recipe": recipe,
        "corrupted_images": max((r["corrupted"]["images"] for r in used if r["corrupted"]), default=0),
        "hardware": sorted({r["hardware"] for r in used}),
        "commits": sorted({commit for r in used for commit in r["commits"]}),
        "days": sorted({r["started"][:10] for r in used}),
        "train_images": sorted({r["train_images"] for r in used}),
        "rows": table,
        "differences": [x for x in differences if x["last"] is not None],
    }


def _paper(number, dataset, row):
    """Returns what the paper has of a row, in percent, and its gain over the paper's plain row; None without.

    Of a smaller network only the gain of the one it stands for, and none if that has another teacher.
    """
    table = TABLES[number].paper
    backbone = STANDS_FOR.get(row.backbone, row.backbone)
    if row.teacher != Row(backbone, row.system).teacher:
        return None, None
    value, plain = (table.get((backbone, system), {}).get(dataset) for system in (row.system, "plain"))
    if value is None:
        return None, None
    top1 = lambda x: x[0] if isinstance(x, tuple) else x  # noqa: E731
    gain = None if row.system == "plain" or plain is None else round(top1(value) - top1(plain), 2)
    return (None if backbone != row.backbone else value), gain


def _each(found):
    """Returns the different ones of some dicts, in their order."""
    return list({json.dumps(x, sort_keys=True): x for x in found}.values())


def _published(found):
    if found is None:
        return None
    rounded = lambda x: None if x is None else round(x, 3)  # noqa: E731
    return {"mean": rounded(found.mean), "std": rounded(found.std), "n": found.n, "half": rounded(found.interval)}


def _losses(gates):
    """Returns {part: what accuracy changes by when it is replaced}, paired by seed, in points, of {seed: gate}."""
    of = lambda part: {s: 100 * g["top1"][part] for s, g in gates.items() if part in g["top1"]}  # noqa: E731
    parts = dict.fromkeys(part for g in gates.values() for part in g["top1"] if part != "as_is")
    return {part: _published(paired(of(part), of("as_is"))) for part in parts}


def _gates(found):
    """Returns the means over seeds of what gates do, in the structure of one; None if there is none."""
    if not found:
        return None
    if isinstance(found[0], dict):
        return {key: _gates([x[key] for x in found if x.get(key) is not None]) for key in found[0]}
    return round(float(np.mean(found)), 4)
