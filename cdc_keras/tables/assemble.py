"""From the runs of a table to its numbers, with their spread over seeds."""

import json

import numpy as np

from cdc_keras.tables.paper import TABLES
from cdc_keras.tables.statistics import holm, paired, summary
from cdc_keras.tables.systems import STANDS_FOR, Row

# Beside which a gated network is set, if not beside all others: the same without a gate.
WITHOUT = {"se_ours": "se", "cbam_ours": "cbam"}


def scores_of(run):
    """Returns {name: value} of one `TableRow`, accuracies in percent.

    `last`: test top-1 after the last epoch, `chosen` after the epoch that is best on validation, `best` after the one
    best on test, which is what the paper reports; `top5` after the last; `validation`: top-1 on validation after the
    last; `corrupted`: mean over all corruptions and severities; `gap`: mixed-same minus mixed-rand of the backgrounds
    challenge, and each variant by its name.
    """
    test = run.history["test_top1"]
    scores = {"last": test[-1], "best": max(test), "top5": run.history["test_top5"][-1]}
    if "val_top1" in run.history:
        scores["chosen"] = test[int(np.argmax(run.history["val_top1"]))]
        scores["validation"] = run.history["val_top1"][-1]
    if run.corrupted is not None:
        scores["corrupted"] = float(np.mean(list(run.corrupted["top1"].values())))
    if run.backgrounds is not None:
        top1 = run.backgrounds["top1"]
        scores |= {**top1, "gap": top1["mixed_same"] - top1["mixed_rand"]}
    return {name: 100 * value for name, value in scores.items()}


def assemble(number, dataset, rows, runs, *, recipe, smoke=False):
    """Returns a table as a JSON-ready dict, all that Markdown and plot are made of.

    Args:
        number: of the table.
        dataset: its name.
        rows: the `Row`s it has; those without a run yet stay empty.
        runs: `TableRow`s, the runs of these rows, all of one recipe.
        recipe: the settings that all rows share, as {name: value}.
        smoke: whether the runs are far too short to mean anything.
    """
    by_row = {row.name: [run for run in runs if run.row == row.name] for row in rows}
    used = [run for of_row in by_row.values() for run in of_row]
    values = {name: {run.seed: scores_of(run) for run in of_row} for name, of_row in by_row.items()}
    gains = _gains(rows, values)
    return {
        "table": number,
        "title": TABLES[number].title,
        "dataset": dataset,
        "smoke": smoke,
        "recipe": recipe,
        "corrupted_images": max((run.corrupted["images"] for run in used if run.corrupted), default=0),
        "hardware": sorted({run.hardware for run in used}),
        "commits": sorted({commit for run in used for commit in run.commits}),
        "days": sorted({run.started[:10] for run in used}),
        "train_images": sorted({run.train_images for run in used}),
        "rows": [_row(number, dataset, row, by_row[row.name], values, gains) for row in rows],
        "differences": _differences(rows, values),
    }


def _by_seed(values, row, score):
    """Returns {seed: value} of one score of a row."""
    return {seed: scores[score] for seed, scores in values.get(row, {}).items() if score in scores}


def _names(values, row):
    """Returns the names of the scores of a row, sorted."""
    return sorted({score for scores in values.get(row, {}).values() for score in scores})


def _gains(rows, values):
    """Returns {row: {score: what it gains over our plain network of its backbone}}, of all rows but the plain ones."""
    others, by_score = [row for row in rows if row.system != "plain"], {}
    for row in others:
        plain = Row(row.backbone, "plain").name
        for name in _names(values, row.name):
            gain = paired(_by_seed(values, row.name, name), _by_seed(values, plain, name))
            if gain is not None:
                by_score.setdefault(name, {})[row.name] = gain
    gains = {row.name: {} for row in others}
    for name, of_rows in by_score.items():
        for row, gain in _tested(of_rows).items():
            gains[row][name] = gain
    return gains


def _tested(differences):
    """Returns {key: `Summary` of differences} JSON-ready, with their p-values and those corrected for their number."""
    p_values = {key: of.p_value for key, of in differences.items() if of.p_value is not None}
    corrected = holm(p_values)
    tests = {key: {"p": float(f"{p:.3g}"), "p_holm": float(f"{corrected[key]:.3g}")} for key, p in p_values.items()}
    return {key: _published(of) | tests.get(key, {}) for key, of in differences.items()}


def _row(number, dataset, row, runs, values, gains):
    """Returns what a table says of a row, whose `TableRow`s are `runs`, and whose gains are among `gains`."""
    names = _names(values, row.name)
    entry = {"row": row.name, "title": row.title, "seeds": sorted(values[row.name])}
    entry["paper"], entry["paper_gain"] = _paper(number, dataset, row)
    entry["scores"] = {name: _published(summary(_by_seed(values, row.name, name).values())) for name in names}
    if row.name in gains:
        entry["gains"] = gains[row.name]
    if not runs:
        return entry
    gates = {run.seed: run.gate for run in runs if run.gate is not None}
    untrained = runs[0].settings.get("gate_context") == "untrained"
    return entry | {
        "parameters": runs[0].parameters,
        "trainable_parameters": runs[0].trainable_parameters,
        "images_per_second": float(np.median([run.images_per_second for run in runs])),
        "hours": sum(run.hours for run in runs),
        "hardware": sorted({run.hardware for run in runs}),
        "commits": sorted({commit for run in runs for commit in run.commits}),
        "gate": _means(list(gates.values())),
        "gate_losses": _losses(gates),
        "contexts": [] if untrained else _distinct(run.context for run in runs if run.context),
        "teachers": _distinct(run.teacher for run in runs if run.teacher),
    }


def _differences(rows, values):
    """Returns what gated networks have over others of their backbone at the last epoch."""
    differences = {}
    for ours in (row for row in rows if row.system == "ours" or row.system in WITHOUT):
        for row in rows:
            if row.backbone == ours.backbone and row.system == WITHOUT.get(ours.system, row.system) and row != ours:
                difference = paired(_by_seed(values, ours.name, "last"), _by_seed(values, row.name, "last"))
                if difference is not None:
                    differences[ours.name, row.name] = difference
    return [{"row": row, "minus": other, "last": of} for (row, other), of in _tested(differences).items()]


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
    top1 = value[0] if isinstance(value, tuple) else value
    plain_top1 = plain[0] if isinstance(plain, tuple) else plain
    gain = None if row.system == "plain" or plain is None else round(top1 - plain_top1, 2)
    return (None if backbone != row.backbone else value), gain


def _distinct(dicts):
    """Returns the different ones of some dicts, in their order."""
    return list({json.dumps(x, sort_keys=True): x for x in dicts}.values())


def _published(result):
    """Returns a `Summary` as a JSON-ready dict."""
    numbers = {"mean": result.mean, "std": result.std, "half": result.interval}
    return {name: None if value is None else round(value, 3) for name, value in numbers.items()} | {"n": result.n}


def _losses(gates):
    """Returns {name: what accuracy changes by when it is replaced}, paired by seed, in points, of {seed: gate}."""

    def top1(name):
        return {seed: 100 * gate["top1"][name] for seed, gate in gates.items() if name in gate["top1"]}

    parts = dict.fromkeys(name for gate in gates.values() for name in gate["top1"] if name != "as_is")
    return {name: _published(paired(top1(name), top1("as_is"))) for name in parts}


def _means(gates):
    """Returns the means over seeds of what gates do, in the structure of one; None if there is none."""
    if not gates:
        return None
    if isinstance(gates[0], dict):
        return {key: _means([gate[key] for gate in gates if gate.get(key) is not None]) for key in gates[0]}
    return round(float(np.mean(gates)), 4)
