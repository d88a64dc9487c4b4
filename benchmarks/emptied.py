"""Is T of `shapes` free of the category, and does the decoder listen? python -m benchmarks.emptied

For every seed: an extractor by the recipe counterfactual, a CGM with the same networks and noise whose reconstruction
error is about as large, a judge that no player knew and that knows blur, and an audit of the first two. What is
finished is not made again. Writes docs/results/emptied.json; docs/fill.py fills the documents.
"""

import dataclasses
import json
import pathlib

from absl import app, flags

from benchmarks import judges
from benchmarks.runs import trained
from cdc_keras.audit.audit import audit
from cdc_keras.audit.probes import PROBES
from cdc_keras.audit.summary import NUMBERS
from cdc_keras.cli import quiet_libraries
from cdc_keras.flags import config_from_flags, parse, train
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment
from cdc_keras.runs.trained import load, load_disentangler
from cdc_keras.tables.statistics import summary
from cdc_keras.zoo.findings import READERS

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "emptied.json"
FLAGFILES = ("shapes_extractor", "counterfactual")
EPOCHS = 28
# Without adversaries the error is set by the prior alone: the more it weighs, the less T holds.
CGM = {
    "context": "cgm",
    "counterfactual_weight": 0.0,
    "critic_weight": 0.0,
    "cycle_weight": 0.0,
    "decoder_epochs": 0,
    "prior_weight": 1e-4,
    "epochs": 8,
}
SEEN = "reconstruction, seen as its own", "decoded under y', seen as y'", "decoded under y', seen as its own"
JUDGED = dict(zip(judges.DECODED, SEEN, strict=True))
FACTORS = ("category", "texture", "hue", "rotation")
SCENES = {
    "counterfactual_mse": "counterfactual error",
    "spread_iou": "IoU of V with the object",
    "spread_iou_of_another": "IoU of another image's V",
}


def recipe(seed):
    """Returns the `RunConfig` of the recipe's extractor."""
    files = [f"--flagfile={ROOT / 'configs' / name}.flags" for name in FLAGFILES]
    return dataclasses.replace(config_from_flags(parse(train, files)), seed=seed, epochs=EPOCHS, precision="auto")


def measured(seed, folder):
    """Returns what was found of one seed, having trained and audited what is missing in a folder."""
    configs = {"context": recipe(seed), "cgm": dataclasses.replace(recipe(seed), **CGM)}
    runs = {name: trained(config, folder / f"{name}_{seed}", pictures=True) for name, config in configs.items()}
    judge = load(judges.judge(judges.SOFTENED, seed, folder).path)
    context, place = runs["context"], runs["context"].path / NUMBERS
    if not place.is_file():
        audit(context.path, rivals={"cgm": runs["cgm"].path}, seed=seed)
    found, notes = json.loads(place.read_text()), context.notes()
    kept = ("findings", "reconstruction_mse", "scenes", "probe_images", "scored_images")
    return {
        "seed": seed,
        **{name: found[name] for name in kept},
        "judged": {name: judges.seen(judge, load_disentangler(run.path)) for name, run in runs.items()},
        "environment": environment(),
        **{name: notes[name] for name in ("hours", "hardware", "commit")},
        "precision": context.config().precision,
    }


def values(record, features):
    """Returns {what: number} of T ("context"), or of the rival "cgm", in one record."""
    found = {"reconstruction MSE": record["reconstruction_mse"][features]["mean"]}
    found |= {text: record["judged"][features][name] for name, text in JUDGED.items()}
    found |= {text: record["scenes"][features][name]["mean"] for name, text in SCENES.items()}
    return found | probed(record, features)


def probed(record, features):
    """Returns {what: share} that probes read from features: of the category each, of other factors the strongest."""
    accuracy = {(x["target"], x["features"], x["reader"]): x["accuracy"] for x in record["findings"]}
    found = {f"category, by {READERS[kind]}": accuracy["category", features, kind] for kind in PROBES}
    for factor in FACTORS:
        if (factor, features, "conv") in accuracy:
            found[f"{factor}, by the strongest probe"] = max(accuracy[factor, features, kind] for kind in PROBES)
    return found


def table(records):
    """Returns the records as Markdown: the recipe, the CGM and the pixels, means over seeds."""
    columns = [[values(record, name) for record in records] for name in ("context", "cgm")]
    columns.append([probed(record, "pixels") for record in records])
    rows = [(what, *(_cell(what, column) for column in columns)) for what in columns[0][0]]
    seeds = ", ".join(str(record["seed"]) for record in records)
    means = f"Means over seeds {seeds}, with half of their 95% intervals" if len(records) > 1 else f"One seed, {seeds}"
    minutes = {}
    for record in records:
        minutes.setdefault(record["hardware"], []).append(60 * record["hours"])
    took = "; ".join(f"{summary(x).mean:.0f} minutes on {hardware}" for hardware, x in minutes.items())
    commits, precisions = (", ".join(sorted({record[key] for record in records})) for key in ("commit", "precision"))
    return (
        f"{markdown_table(['', 'recipe', 'CGM', 'pixels'], rows)}\n\n"
        f"{means}. Probes learned from {records[0]['probe_images']} fresh scenes, and all was scored on "
        f"{records[0]['scored_images']} others. Training by the recipe: {EPOCHS} epochs in {precisions}; {took}; other "
        f"work beside it; commit {commits}."
    )


def averages(records, features):
    """Returns {what: mean over seeds} of `values`."""
    found = [values(record, features) for record in records]
    return {what: summary(x[what] for x in found).mean for what in found[0]}


def _cell(what, column):
    found = summary(x[what] for x in column if what in x)
    if found is None:
        return ""
    share = not any(word in what for word in ("MSE", "error", "IoU"))
    scale, digits, sign = (100, 1, "%") if share else (1, 3, "")
    half = "" if found.interval is None else f" ± {scale * found.interval:.{digits}f}{sign}"
    return f"{scale * found.mean:.{digits}f}{sign}{half}"


def main(argv):
    del argv
    quiet_libraries()
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for seed in range(flags.FLAGS.seeds):
        if seed not in {record["seed"] for record in records}:
            records = sorted([*records, measured(seed, pathlib.Path(flags.FLAGS.out))], key=lambda x: x["seed"])
            RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    flags.DEFINE_integer("seeds", 3, "how many seeds", lower_bound=1)
    flags.DEFINE_string("out", "runs/emptied", "folder for the runs")
    app.run(main)
