"""Fills the documents' numbers from records: python -m docs.fill_readme [--add RUN_DIR ...] [--demo DEMO_DIR] [--check]

`--add` copies what is published of evaluated runs into docs/results/runs.json, `--demo` the demo's table and a strip;
without either the documents are filled from what is there, and with `--check` only compared.
"""

import argparse
import json
import pathlib
import re
import shutil
import sys

from benchmarks import disentangling, latency, settings, training_step
from cdc_keras.config import PATHS
from cdc_keras.tables import markdown
from cdc_keras.zoo.findings import PLAYERS, READERS
from cdc_keras.zoo.record import INDEX, PRESET, Record

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
RUNS, DEMO = RESULTS / "runs.json", RESULTS / "demo.json"


def record(folder):
    """Returns what is published of a run folder: no path of the machine it ran on."""
    read = lambda name: json.loads((folder / name).read_text())  # noqa: E731
    config, run = read("config.json"), read("run.json")
    settings = {k: v for k, v in config.items() if v is not None and k not in PATHS}
    return {
        "name": folder.name,
        "settings": settings,
        "extractor_sha256": run.get("extractor_sha256"),
        **{k: run[k] for k in ("versions", "backend", "hardware", "commit", "started", "train_images", "hours")},
        "last_epoch": run["last_epoch"],
        "evaluations": [json.loads(p.read_text()) for p in sorted(folder.glob("evaluation-*.json"))],
    }


def demo_text():
    return json.loads(DEMO.read_text())["table"].rstrip()


def results_text():
    """Returns the two tables of the recorded runs."""
    runs = json.loads(RUNS.read_text())
    extractors = [run for run in runs if run["settings"]["task"] == "extractor"]
    lines = [
        "| extractor | data | epochs | batch | seed | validation MSE | D accuracy in training "
        "| hours | hardware | commit |",
        "|" + "---|" * 10,
    ]
    for run in extractors:
        s, last = run["settings"], run["last_epoch"]
        lines.append(
            f"| {run['name']} | {s['dataset']} {s['image_size']} px | {s['epochs']} | {s['batch_size']} | {s['seed']} "
            f"| {last['val_reconstruction_loss']:.4f} | {last['discriminator_accuracy']:.1%} | {run['hours']:.2f} "
            f"| {run['hardware']} | {run['commit']} |"
        )
    lines += [
        "",
        "| classifier | data | recipe | epochs | seed | validation top-1, last epoch | test top-1, last epoch "
        "| test top-5 | hours | commit |",
        "|" + "---|" * 10,
    ]
    for run in runs:
        if run in extractors:
            continue
        s = run["settings"]
        test = next(e for e in run["evaluations"] if e["split"] == "test" and e["weights"] == "last")
        lines.append(
            f"| {run['name']} | {s['dataset']} {s['image_size']} px | {s['recipe']} | {s['epochs']} | {s['seed']} "
            f"| {run['last_epoch']['val_top1']:.2%} | {test['top1']:.2%} | {test['top5']:.2%} | {run['hours']:.2f} "
            f"| {run['commit']} |"
        )
    return "\n".join(lines)


def _records():
    """Returns the zoo's records, by name."""
    names = json.loads((ROOT / "zoo" / INDEX).read_text())
    paths = [ROOT / "zoo" / name / PRESET for name in sorted(names)]
    return [Record.from_json(path.read_text(), path) for path in paths]


def zoo_text():
    """Returns the tables of the zoo's records: extractors, then classifiers."""
    lines = [
        "| extractor | context model | epochs | test MSE | its own D | strongest probe on T | on pixels | hours |",
        "|" + "---|" * 8,
    ]
    scored = [(x, {metric.name: metric.value for metric in x.metrics if metric.split == "test"}) for x in _records()]
    for record, scores in scored:
        if record.kind != "extractor":
            continue
        own = f"{scores['discriminator_accuracy']:.1%}" if "discriminator_accuracy" in scores else ""
        read = [_strongest(record.audit, source) for source in ("context", "pixels")]
        lines.append(
            f"| [{record.name}](zoo/{record.name}) | {record.run_config().context.upper()} | {record.epochs} "
            f"| {scores['reconstruction_loss']:.4f} | {own} | {read[0]} | {read[1]} | {record.hours:.2f} |"
        )
    lines += ["", "| classifier | gated by | epochs | parameters | test top-1 | top-5 | hours |", "|" + "---|" * 7]
    for record, scores in scored:
        if record.kind != "classifier":
            continue
        gate = record.extractor.name if record.extractor else ""
        lines.append(
            f"| [{record.name}](zoo/{record.name}) | {gate} | {record.epochs} | {record.parameters:,} "
            f"| {scores['top1']:.2%} | {scores['top5']:.2%} | {record.hours:.2f} |"
        )
    return "\n".join(lines)


def released_text(dataset):
    """Returns the table of what the audits of the zoo's extractors of a data set read, by what they pay for it."""
    probes = [reader for reader in READERS if reader not in PLAYERS]
    head = ["record", "context model", "test MSE", *(READERS[x] for x in (*probes, "discriminator"))]
    head += ["strongest probe after LEACE", "the classifier, decoded under another category"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    found = [record for record in _records() if record.audit is not None and record.dataset.name == dataset]
    mse = lambda record: next(x.value for x in record.metrics if x.name == "reconstruction_loss")  # noqa: E731
    for record in sorted(found, key=mse):
        read = {(x.target, x.features, x.reader): x.accuracy for x in record.audit.findings}
        cells = [read.get(("category", "context", reader)) for reader in (*probes, "discriminator")]
        cells.append(max(value for key, value in read.items() if key[:2] == ("category", "erased-before")))
        cells.append(read.get(("category", "context swap", "classifier")))
        shown = ["" if value is None else f"{value:.1%}" for value in cells]
        link, context = f"[{record.name}](../zoo/{record.name})", record.run_config().context.upper()
        lines.append(f"| {link} | {context} | {mse(record):.4f} | {' | '.join(shown)} |")
    images = {x.target: x for x in found[0].audit.findings if (x.features, x.reader) == ("images", "classifier")}
    pixels = max(x.accuracy for x in found[0].audit.findings if x.features == "pixels" and x.target == "category")
    chance = next(x.chance for x in found[0].audit.findings)
    said = f"The strongest probe reads {pixels:.1%} from pixels, chance is {chance:.1%}."
    if "category" in images:
        said += f" The classifier reads {images['category'].accuracy:.1%} from the images."
    return "\n".join([*lines, "", said])


def _strongest(audit, source):
    """Returns what the strongest fresh probe reads of the category from a source, as text."""
    if audit is None:
        return ""
    best = audit.strongest(source)
    return f"{best.accuracy:.1%} ({READERS[best.reader]})"


def speed_text(name):
    """Returns the table of a benchmark in docs/results, and what it was measured on."""
    measured = json.loads((RESULTS / f"{name}.json").read_text())
    table = {
        "settings": lambda: settings.table(measured["rates"]),
        "training_step": lambda: training_step.table(measured["table"]),
        "latency": lambda: latency.table(measured["seconds"]),
    }[name]()
    environment = measured["environment"]
    packages = {**environment["versions"], **measured.get("versions", {})}
    versions = ", ".join(f"{package} {version}" for package, version in packages.items() if package != "cdc-keras")
    return (
        f"{table}\n\n{measured['rounds']} rounds on {environment['hardware']}; {versions}; commit "
        f"{environment['commit']}, {environment['started'][:10]}."
    )


def disentangling_text(dataset):
    """Returns the table of the study of disentangling on a data set."""
    return disentangling.table([r for r in json.loads(disentangling.RESULTS.read_text()) if r["dataset"] == dataset])


def tables_text():
    """Returns what the published tables say of the last epoch, in short; those of one folder and recipe together."""
    together = {}
    for path in sorted(RESULTS.glob("*/table*.json")):
        table = json.loads(path.read_text())
        together.setdefault((path.parent, table["dataset"], json.dumps(table["recipe"])), []).append(table)
    return "\n\n".join(map(_short_table, together.values()))


def _short_table(tables):
    dataset, recipe = tables[0]["dataset"], tables[0]["recipe"]
    rows = {row["row"]: row for table in tables for row in table["rows"] if row["seeds"]}
    backbones = list(dict.fromkeys(name.split("+")[0] for name in rows))
    rows = sorted(rows.values(), key=lambda row: backbones.index(row["row"].split("+")[0]))
    numbers = [str(table["table"]) for table in tables]
    paper = " (paper: 200)" if dataset in ("cifar10", "cifar100") else ""
    known = any(row["paper_gain"] is not None for row in rows)
    gap = any("gap" in row["readings"] for row in rows)
    said = f" The paper's gains are those of its best test epoch{markdown.stand_ins(rows)}." if known else ""
    head = ["network", "seeds", "mean ± std", "gain over plain, 95% interval"]
    head += (["the paper's gain"] if known else []) + (["background gap", "minus plain's"] if gap else [])
    lines = [
        f"{'Tables' if len(numbers) > 1 else 'Table'} {', '.join(numbers)}, {dataset}, {recipe['epochs']} "
        f"epochs{paper}, recipe {recipe['recipe']}: test top-1, last epoch, in percent.{said}",
        "",
        f"| {' | '.join(head)} |",
        "|---|" + "---:|" * (len(head) - 1),
    ]
    for row in rows:
        gains, read = row.get("gains", {}), row["readings"]
        cells = [row["title"], str(len(row["seeds"])), markdown.spread(read["last"]), markdown.gain(gains.get("last"))]
        cells += ["" if row["paper_gain"] is None else f"{row['paper_gain']:+.2f}"] if known else []
        cells += [markdown.spread(read.get("gap")), markdown.gain(gains.get("gap"))] if gap else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


MARKS = {
    "README.md": {"demo": demo_text, "zoo": zoo_text, "tables": tables_text, "results": results_text},
    "docs/disentangling.md": {
        "shapes": lambda: disentangling_text("shapes"),
        "cifar100": lambda: disentangling_text("cifar100"),
        "released_shapes": lambda: released_text("shapes"),
        "released_cifar100": lambda: released_text("cifar100"),
    },
    "docs/speed.md": {
        "training_step": lambda: speed_text("training_step"),
        "settings": lambda: speed_text("settings"),
        "latency": lambda: speed_text("latency"),
    },
}


def filled(name):
    """Returns the text of a document with its generated parts replaced."""
    document = (ROOT / name).read_text()
    for mark, make in MARKS[name].items():
        text = make()
        document, n = re.subn(
            f"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", lambda m, t=text: f"{m[1]}{t}\n{m[2]}", document, flags=re.S
        )
        assert n == 1, f"{name} has no {mark} marks"
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--add", nargs="+", type=pathlib.Path, default=[], metavar="RUN_DIR", help="evaluated runs")
    parser.add_argument("--demo", type=pathlib.Path, metavar="DEMO_DIR", help="folder that the demo wrote")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document is stale")
    arguments = parser.parse_args()
    if arguments.add:
        new = {folder.name: record(folder) for folder in arguments.add}
        old = {run["name"]: run for run in json.loads(RUNS.read_text())} if RUNS.exists() else {}
        RUNS.write_text(json.dumps(list((old | new).values()), indent=1) + "\n")
    if arguments.demo:
        environment = json.loads((arguments.demo / "gated" / "run.json").read_text())
        kept = {k: environment[k] for k in ("versions", "hardware", "commit", "started")}
        table = (arguments.demo / "demo.md").read_text()
        scores = json.loads((arguments.demo / "demo.json").read_text())
        DEMO.write_text(json.dumps({"table": table, **kept, **scores}, indent=1) + "\n")
        shutil.copy(arguments.demo / "gated" / "pictures" / "strips.png", ROOT / "docs" / "demo_strips.png")
    for name in MARKS:
        text, path = filled(name), ROOT / name
        if arguments.check and text != path.read_text():
            sys.exit(f"{name} is stale: run python -m docs.fill_readme")
        path.write_text(text)


if __name__ == "__main__":
    main()
