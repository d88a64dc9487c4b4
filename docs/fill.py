"""Fills the generated parts of README.md and docs/*.md from the files of results: python -m docs.fill [--check]

A generated part stands between `<!-- name -->` and `<!-- /name -->`, where `name` is one of `PARTS`, in any of these
documents. With `--check` nothing is written, and a document that is not up to date is an error. `--demo FOLDER` first
copies the tables and pictures of a demo into docs/.
"""

import argparse
import functools
import json
import pathlib
import re
import shutil
import sys

from benchmarks import (
    augmentation,
    disentangling,
    emptied,
    gate_pays,
    growth,
    input_path,
    int8,
    judges,
    latency,
    meanings,
    photographs,
    settings,
    start,
    training_step,
    waterbirds,
)
from cdc_keras import cli, flags
from cdc_keras.markdown import markdown_table
from cdc_keras.tables import markdown
from cdc_keras.tables.statistics import holm
from cdc_keras.zoo.findings import PLAYERS, READERS
from cdc_keras.zoo.record import INDEX, PRESET, Record

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
DEMO = RESULTS / "demo.json"
# Table: (of which benchmark, what makes it, of which part of its record).
SPEED = {
    "training_step": ("training_step", training_step.speed_table, "measured"),
    "training_costs": ("training_step", training_step.costs_table, "measured"),
    "training_gate": ("training_step", training_step.gate_table, "measured"),
    "latency": ("latency", latency.table, "seconds"),
    "start": ("start", start.table, "seconds"),
    "settings": ("settings", settings.table, "rates"),
    "growth": ("growth", growth.table, "measured"),
    "photographs": ("photographs", photographs.table, "photographs"),
    "input_path": ("input_path", input_path.augmentation_table, "augmentations"),
}
# What the classifier of an audit sees: (target, features) of a finding.
DECODED = {
    "decoded under y, seen as y": ("category", "context reconstruction"),
    "under y', seen as y": ("category", "context swap"),
    "under y', seen as y'": ("condition", "context swap"),
}
MOST_USED = (
    "run_dir",
    "task",
    "dataset",
    "data_dir",
    "image_size",
    "epochs",
    "batch_size",
    "network",
    "extractor",
    "seed",
)
MARK = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.S)


def result(name):
    """Returns what a benchmark found."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def demo():
    """Returns the demo's table."""
    return json.loads(DEMO.read_text(encoding="utf-8"))["table"].rstrip()


def commands():
    """Returns the table of the program's commands."""
    rows = [
        (f"`{name}`", command.summary, f"`cdc-keras {name} {command.example}`")
        for name, command in cli.COMMANDS.items()
    ]
    return markdown_table(("command", "what it does", "for example"), rows)


def most_used_flags():
    """Returns the table of the flags of training that are used most."""
    values = flags.flags.FlagValues()
    flags.train(values)
    rows = [(f"`--{name}`", values[name].help.split(">: ", 1)[-1].replace("<", "&lt;")) for name in MOST_USED]
    return markdown_table(("flag", "meaning"), rows)


def records(kind):
    """Returns the zoo's records of a kind, by name."""
    names = json.loads((ROOT / "zoo" / INDEX).read_text(encoding="utf-8"))
    paths = [ROOT / "zoo" / name / PRESET for name in sorted(names)]
    every = [Record.from_json(path.read_text(encoding="utf-8"), path) for path in paths]
    return [record for record in every if record.kind == kind]


def test_scores(record):
    """Returns {name: value} of a record's metrics on the test images."""
    return {metric.name: metric.value for metric in record.metrics if metric.split == "test"}


def zoo(link):
    """Returns the tables of the zoo's records: extractors, then classifiers."""
    extractors = []
    for record in records("extractor"):
        scores = test_scores(record)
        own = f"{scores['discriminator_accuracy']:.1%}" if "discriminator_accuracy" in scores else ""
        probes = [strongest(record.audit, features) for features in ("context", "pixels")]
        mse = f"{scores['reconstruction_loss']:.4f}"
        context = record.run_config().context.upper()
        extractors.append((link(record), context, record.epochs, mse, own, *probes, f"{record.hours:.2f}"))
    classifiers = []
    for record in records("classifier"):
        scores, gate = test_scores(record), record.extractor.name if record.extractor else ""
        top1, top5 = (f"{scores[name]:.2%}" for name in ("top1", "top5"))
        counts = record.epochs, f"{record.parameters:,}"
        classifiers.append((link(record), gate, *counts, top1, top5, f"{record.hours:.2f}"))
    head = ("extractor", "context model", "epochs", "test MSE", "its own D", "strongest probe on T", "on pixels")
    gated_head = ("classifier", "gated by", "epochs", "parameters", "test top-1", "top-5", "hours")
    return f"{markdown_table((*head, 'hours'), extractors)}\n\n{markdown_table(gated_head, classifiers)}"


def released(dataset, link):
    """Returns what the audits of the zoo's extractors of a data set found, ordered by the reconstruction error."""
    probes = [reader for reader in READERS if reader not in PLAYERS]
    audited = [x for x in records("extractor") if x.audit is not None and x.dataset.name == dataset]
    rows = []
    for record in sorted(audited, key=lambda record: test_scores(record)["reconstruction_loss"]):
        accuracy = {x.key: x.accuracy for x in record.audit.findings}
        cells = [accuracy.get(("category", "context", reader)) for reader in (*probes, "discriminator")]
        cells.append(max(value for key, value in accuracy.items() if key[:2] == ("category", "erased-before")))
        cells += [accuracy.get((*seen, "classifier")) for seen in DECODED.values()]
        shown = ["" if value is None else f"{value:.1%}" for value in cells]
        mse = f"{test_scores(record)['reconstruction_loss']:.4f}"
        rows.append((link(record), record.run_config().context.upper(), mse, *shown))
    head = ["record", "context model", "test MSE", *(READERS[x] for x in (*probes, "discriminator"))]
    head += ["strongest probe after LEACE", *DECODED]
    judged = max(audited, key=lambda record: (record.audit.classifier is not None, record.name))
    found = {x.key: x for x in judged.audit.findings}
    pixels = max(x.accuracy for key, x in found.items() if key[:2] == ("category", "pixels"))
    chance = next(iter(found.values())).chance
    sentence = f"The strongest probe reads {pixels:.1%} from pixels, chance is {chance:.1%}."
    if (classifier := found.get(("category", "images", "classifier"))) is not None:
        sentence += f" The classifier reads {classifier.accuracy:.1%} from the images."
    return f"{markdown_table(head, rows)}\n\n{sentence}"


def emptied_extractors():
    """Returns what the audits of the extractors of `shapes` found."""
    path = RESULTS / "emptied.json"
    if not path.exists():
        return "This has not been measured yet."
    return emptied.table(json.loads(path.read_text(encoding="utf-8")))


def idea():
    """Returns what was found on `shapes`, as a list."""
    records = result("emptied")
    found, cgm = (emptied.averages(records, name) for name in ("context", "cgm"))
    of_pixels = [emptied.probed(record, "pixels")["category, by the strongest probe"] for record in records]
    pixels = sum(of_pixels) / len(of_pixels)
    copy, swap, own = (f"{found[what]:.0%}" for what in emptied.SEEN)
    strongest, texture, hue = (f"{found[f'{x}, by the strongest probe']:.0%}" for x in ("category", "texture", "hue"))
    runs = result("gate_pays")
    pays, painted = (
        gate_pays.gains(runs, "telltale backgrounds (0.95)", of) for of in (gate_pays.OWN, gate_pays.PAINTED)
    )
    return (
        f"* **The decoder listens.** A classifier that took no part sees {swap} of the images decoded under another "
        f"category as that one, and {own} as their own. It sees {copy} of the plain reconstructions as their own.\n"
        f"* **T has lost most of the category.** The strongest probe reads it in {strongest} of the images; chance is "
        f"10%. It reads {cgm['category, by the strongest probe']:.0%} from the T of a CGM that copies images about as "
        f"well, and {pixels:.0%} from the pixels. It reads the texture of the background in {texture}, and its hue in "
        f"{hue}.\n"
        "* **The price is a blurred copy.** Its mean squared error is "
        f"{found['reconstruction MSE']:.3f}, for images in [-1, 1].\n"
        f"* **V finds the object.** V needs no mask and no "
        f"label of the image. Its IoU with the object is {found['IoU of V with the object']:.2f}, that of another "
        f"image's V {found[emptied.SCENES['spread_iou_of_another']]:.2f}.\n"
        "* **A gate that starts from V pays** where the background misleads. Its accuracy differs by "
        f"{pays['plain']} points from that of the plain network, and by "
        f"{pays['the same, T and V of another image']} from that of the same gate with T and V of another image. From "
        f"that of a plain network with as many weights it differs by {pays['plain, as many weights']}.\n"
        "* **Painting pays more.** The decoder paints half of the training images under another category, so that "
        "their background no longer tells it. The accuracy of the plain network then differs by "
        f"{painted['plain']} points from that without, and by "
        f"{painted['plain, half of them painted under their own']} from that with images painted under their own "
        "category. Here, and for the gate, the "
        "extractor had seen other images, whose backgrounds do not mislead ([does it pay?](docs/does_it_pay.md), "
        "[demo](docs/demo.md))."
    )


def flowers():
    """Returns what was found on photographs, as a paragraph."""
    names = "tf_flowers", "tf_flowers_counterfactual"
    paper, recipe = (record for name in names for record in records("extractor") if record.name == name)
    accuracies = ({x.key: x.accuracy for x in record.audit.findings} for record in (recipe, paper))
    sees, paper_sees = ([found[*seen, "classifier"] for seen in DECODED.values()] for found in accuracies)
    read, paper_read = (record.audit.strongest("context") for record in (recipe, paper))
    pixels = recipe.audit.strongest("pixels")
    error, paper_error = (test_scores(record)["reconstruction_loss"] for record in (recipe, paper))
    return (
        f"At {recipe.run_config().image_size} px, a classifier that took no part sees {sees[2]:.0%} of the images "
        f"decoded under another category as that one, and {sees[1]:.0%} as their own. With the paper's settings it "
        f"sees {paper_sees[2]:.0%} and {paper_sees[1]:.0%}. The strongest probe reads the category from T in "
        f"{read.accuracy:.0%} of the photographs. With the paper's settings it reads {paper_read.accuracy:.0%}. Of the "
        f"pixels it reads {pixels.accuracy:.0%}, and guessing finds {pixels.chance:.0%}. The price is a coarser copy, "
        f"with a mean squared error of {error:.3f} instead of {paper_error:.3f}."
    )


def trials(number):
    """Returns the trials of a round that led to the recipe counterfactual."""
    found = result("counterfactual_trials")
    found = [trial for trial in found if trial["round"] == number]
    shares = {"swap": "seen as y'", "own": "seen as the own", "conv": "category, read by conv", "texture": "texture"}
    turns = {"rotation_r2": "R² of the rotation"} if "rotation_r2" in found[0] else {}
    rows = []
    for trial in found:
        errors = [f"{trial[key]:.3f}" for key in ("mse", "counterfactual_mse")]
        read = (f"{trial[key]:.1%}" for key in shares)
        rows.append((trial["name"], *errors, *read, *(f"{trial[key]:.2f}" for key in turns)))
    head = ("setting", "MSE", "counterfactual error", *shares.values(), *turns.values())
    hardware = sorted({trial["hardware"] for trial in found})
    commits = sorted({trial["commit"] for trial in found if trial.get("commit")})
    return f"{markdown_table(head, rows)}\n\nSeed 0; {', '.join(hardware)}; commits {', '.join(commits)}."


def strongest(audit, features):
    """Returns what the strongest fresh probe reads of the category from features, as text."""
    best = audit and audit.strongest(features)
    return f"{best.accuracy:.1%} ({READERS[best.reader]})" if best else ""


def speed(name):
    """Returns a table of `SPEED`, and what it was measured on."""
    benchmark, of_record, key = SPEED[name]
    path = RESULTS / f"{benchmark}.json"
    if not path.exists():
        return "This has not been measured yet."
    measured = json.loads(path.read_text(encoding="utf-8"))
    environment = measured["environment"]
    packages = {**environment["versions"], **measured.get("versions", {})}
    versions = ", ".join(f"{package} {version}" for package, version in packages.items() if package != "cdc-keras")
    return (
        f"{of_record(measured[key])}\n\n{measured['rounds']} rounds on {environment['hardware']}; {versions}; commit "
        f"{environment['commit']}, {environment['started'][:10]}."
    )


def study(dataset):
    """Returns the table of the study of disentangling on a data set."""
    runs = json.loads(disentangling.RESULTS.read_text(encoding="utf-8"))
    return disentangling.table([run for run in runs if run["dataset"] == dataset])


def tables():
    """Returns the last epoch of the published tables in short; tables of one folder and recipe are one."""
    groups = {}
    for path in sorted(RESULTS.glob("*/table*.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        groups.setdefault((path.parent, table["dataset"], json.dumps(table["recipe"])), []).append(table)
    return "\n\n".join(map(_short_table, groups.values()))


def _short_table(group):
    dataset, recipe = group[0]["dataset"], group[0]["recipe"]
    rows = {row["row"]: row for table in group for row in table["rows"] if row["seeds"]}
    backbones = list(dict.fromkeys(name.split("+")[0] for name in rows))
    rows = sorted(rows.values(), key=lambda row: backbones.index(row["row"].split("+")[0]))
    has_paper = any(row["paper_gain"] is not None for row in rows)
    has_gap = any("gap" in row["scores"] for row in rows)
    head = ["network", "seeds", "mean ± std", "gain over plain, 95% interval, p by Holm"]
    head += ["the paper's gain"] if has_paper else []
    head += ["background gap", "minus plain's"] if has_gap else []
    lines = []
    corrected = {name: _corrected(rows, name) for name in ("last", "gap")}
    for row in rows:
        scores, gains = row["scores"], {name: of.get(row["row"]) for name, of in corrected.items()}
        cells = [row["title"], len(row["seeds"]), markdown.spread(scores["last"]), markdown.gain(gains["last"])]
        cells += ["" if row["paper_gain"] is None else f"{row['paper_gain']:+.2f}"] if has_paper else []
        cells += [markdown.spread(scores.get("gap")), markdown.gain(gains["gap"])] if has_gap else []
        lines.append(cells)
    numbers = ", ".join(str(table["table"]) for table in group)
    title = f"{'Tables' if len(group) > 1 else 'Table'} {numbers}, {dataset}, {recipe['epochs']} epochs"
    title += " (paper: 200)" if dataset in ("cifar10", "cifar100") else ""
    title += f", recipe {recipe['recipe']}: test top-1, last epoch, in percent."
    title += f" The paper's gains are those of its best test epoch.{markdown.stand_ins(rows)}" if has_paper else ""
    return f"{title}\n\n{markdown_table(head, lines)}"


def _corrected(rows, score):
    """Returns {row: its gain}, the p-values corrected for all of these rows; a table corrects for its own."""
    gains = {row["row"]: row["gains"][score] for row in rows if score in row.get("gains", {})}
    p_values = holm({name: gain["p"] for name, gain in gains.items() if "p" in gain})
    return {name: gain | ({"p_holm": p_values[name]} if name in p_values else {}) for name, gain in gains.items()}


def parts(path):
    """Returns {name: function that makes the part} for a document; links in it lead from its folder."""
    here = path.parent.relative_to(ROOT)

    def link(record):
        return f"[{record.name}]({'../' * len(here.parts)}zoo/{record.name})"

    return {
        "demo": demo,
        "commands": commands,
        "flags": most_used_flags,
        "zoo": lambda: zoo(link),
        "tables": tables,
        "shapes": lambda: study("shapes"),
        "cifar100": lambda: study("cifar100"),
        "emptied": emptied_extractors,
        "idea": idea,
        "flowers": flowers,
        "judges": lambda: judges.table(result("judges")),
        "meanings": lambda: meanings.table(result("meanings")),
        "int8": lambda: int8.table(result("int8")),
        "trials": lambda: trials(1),
        "more_trials": lambda: trials(2),
        "turned_trials": lambda: trials(3),
        "released_shapes": lambda: released("shapes", link),
        "released_cifar10": lambda: released("cifar10", link),
        "released_cifar100": lambda: released("cifar100", link),
        "released_tf_flowers": lambda: released("tf_flowers", link),
        **{name: functools.partial(speed, name) for name in SPEED},
        "augmentation": lambda: augmentation.table(result("augmentation")),
        "waterbirds": lambda: waterbirds.table(result("waterbirds")),
        "gate_pays": lambda: gate_pays.table(result("gate_pays")),
    }


PARTS = tuple(parts(ROOT / "README.md"))


def filled(path):
    """Returns the text of a document with its generated parts made anew."""
    make = parts(path)

    def part(match):
        name = match[2]
        if name not in make:
            sys.exit(f"error: {path.relative_to(ROOT)} has a part {name!r}; there are {', '.join(PARTS)}")
        return f"{match[1]}{make[name]()}\n{match[3]}"

    text = path.read_text(encoding="utf-8")
    names = re.findall(r"<!-- /?(\w+) -->", text)
    if names != [name for match in MARK.finditer(text) for name in (match[2], match[2])]:
        sys.exit(f"error: in {path.relative_to(ROOT)} a part has no beginning or no end: {', '.join(names)}")
    return MARK.sub(part, text)


def copy_demo(folder):
    """Copies what is published of a demo: its tables, its numbers and two pictures."""
    notes = json.loads((folder / "gated" / "run.json").read_text(encoding="utf-8"))
    table = (folder / "demo.md").read_text(encoding="utf-8")
    numbers = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    kept = {name: notes[name] for name in ("versions", "hardware", "commit", "started")}
    DEMO.write_text(json.dumps({"table": table, **kept, **numbers}, indent=1) + "\n", encoding="utf-8")
    for name in ("swaps", "attention"):
        shutil.copy(folder / f"{name}.png", ROOT / "docs" / f"demo_{name}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=pathlib.Path, metavar="FOLDER", help="folder that the demo wrote")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document is stale")
    arguments = parser.parse_args()
    if arguments.demo:
        copy_demo(arguments.demo)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = filled(path)
        if arguments.check and text != path.read_text(encoding="utf-8"):
            sys.exit(f"error: {path.relative_to(ROOT)} is stale: run python -m docs.fill")
        if not arguments.check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
