"""Does the gate pay where labels are few, or backgrounds misleading? python -m benchmarks.gate_pays

Slim VGG13 on images of `shapes`, plain and gated, with every control, `STEPS` steps each. The extractor was taught by
10,000 other images whose backgrounds tell nothing; `--same` trains one for each seed on the very images and labels that
the classifier gets. Arms of one seed have the same images, the same order and, as far as they share layers, the same
initial weights. Runs on record are not made again. Writes docs/results/gate_pays.json; docs/fill.py makes the tables.
"""

import dataclasses
import itertools
import json
import pathlib
import time

from absl import app, flags

from benchmarks.runs import trained
from cdc_keras.audit.scenes import overlaps
from cdc_keras.config import RunConfig
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import in_batches, scale, training_batches
from cdc_keras.data.shapes import shapes
from cdc_keras.gate.parts import ATTENTION
from cdc_keras.markdown import markdown_table
from cdc_keras.networks import graph
from cdc_keras.runs.environment import environment
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_context, load_painter
from cdc_keras.tables.statistics import holm, paired, summary
from cdc_keras.trainers.build import build

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "gate_pays.json"
STEPS = 400
SURE = 0.05  # of p-values that are corrected for their number
SEEDS = (1, 2, 3, 4, 5)  # the extractor's is 0, and so are its images
CLASSIFIER = RunConfig(
    task="classifier",
    network="vgg13_slim",
    dataset="shapes",
    batch_size=64,
    learning_rate=0.02,
    warmup_epochs=0.0,
    validation_fraction=0.0,
    steps_per_call=5,
)
REGIMES = {
    "few labels": {"train_limit": 200},
    "telltale backgrounds (0.8)": {"train_limit": 1000, "background_bias": 0.8},
    "telltale backgrounds (0.95)": {"train_limit": 1000, "background_bias": 0.95},
}
V = {"gate_spread": True, "gate_init": "spread"}
OWN = "gate, start from V"
PAINTED = "plain, half of the images painted under another category"
OTHERS, THE_SAME = "other images", "the same images"  # by which the extractor was taught
ARMS = {
    "plain": {},
    "plain, as many weights": {"network": "vgg13_w17"},
    "R alone": {"gate_attention": False},
    "gate, P without V": {"extractor": True},
    "gate, P with V": {"extractor": True, "gate_spread": True},
    OWN: {"extractor": True, **V},
    "the same, T and V of another image": {"extractor": True, **V, "gate_context": "shuffled"},
    "the same, untrained extractor": {"extractor": True, **V, "gate_context": "untrained"},
    PAINTED: {"painter": True, "counterfactual_share": 0.5},
    "plain, half of them painted under their own": {
        "painter": True,
        "counterfactual_share": 0.5,
        "counterfactual_control": True,
    },
}
TAUGHT = {arm for arm, settings in ARMS.items() if {"extractor", "painter"} & set(settings)}


def measured(arm, regime, seed, extractor):
    """Returns the record of one training: what was set, the top-1 on test images, and of a gate the IoU of M."""
    settings = {**REGIMES[regime], **ARMS[arm], "seed": seed}
    settings |= {name: extractor for name in ("extractor", "painter") if name in settings}
    config = dataclasses.replace(CLASSIFIER, **settings)
    data = load_dataset(config)
    per_epoch = len(data.train) // config.batch_size
    config = dataclasses.replace(config, epochs=-(-STEPS // per_epoch)).resolved(data.image_size)
    context = load_context(config).network if config.gated and config.gate_attention else None
    painting = load_painter(config, data.class_names)[0] if config.counterfactual_share else None
    started = time.monotonic()
    model = build(config, len(data.class_names), per_epoch, extractor=context, painting=painting)
    plan = {"batch_size": config.batch_size, "seed": seed, "crop_padding": config.crop_padding, "flip": config.flip}
    for epoch in range(config.epochs):
        batches = training_batches(
            data.train, data.image_size, epoch=epoch, steps_per_call=config.steps_per_call, **plan
        )
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0)
    seconds = time.monotonic() - started
    found = {"top1": score(model, data.test, config).check_finite().metrics["top1"]}
    if context is not None:
        found |= attention(model.network, seed)
    return {"arm": arm, "regime": regime, "seed": seed, **found, "seconds": seconds, "settings": config.without_paths()}


def attention(network, seed):
    """Returns the IoU of M with the mask at its resolution, of another image's M, and M's deviation in an image."""
    split = shapes(1000, seed=(seed, 2))
    tapped = graph.activations(network, [ATTENTION])
    maps = in_batches(lambda x: tapped(scale(x), training=False)[ATTENTION], split.images)[..., 0]
    own, another = overlaps(maps, split.factors["mask"])
    return {
        "m_iou": float(own.mean()),
        "m_iou_of_another": float(another.mean()),
        "m_deviation": float(maps.std(axis=(1, 2)).mean()),
    }


def table(records):
    """Returns the records as Markdown: a row for each arm, means over seeds, and what V of its own image gains."""
    records = list(records)
    regimes, shown = _shown(records)
    differences, p_values = compared(records)
    rows = []
    for arm, taught in shown:
        cells = [arm, taught]
        for regime in regimes:
            of = regime, arm, taught
            star = " \\*" if p_values.get(of, 1) < SURE else ""
            cells += [spread(summary(_top1(records, arm, regime, taught).values()))]
            cells += [spread(differences.get(of), "+") + star]
        rows.append(cells)
    head = ["network", "the extractor was taught by"]
    for regime in regimes:
        head += [f"{regime}: top-1, %", "gate from V minus this"]
    overlaps = [
        f"{regime}: {spread(summary(r['m_iou'] for r in chosen), scale=1)} (M of another image "
        f"{spread(summary(r['m_iou_of_another'] for r in chosen), scale=1)})"
        for regime in regimes
        if (chosen := [r for r in records if (r["arm"], r["regime"]) == (OWN, regime)])
    ]
    of_seeds = {}  # seeds -> regimes with these
    for regime in regimes:
        seeds = ", ".join(map(str, sorted({r["seed"] for r in records if r["regime"] == regime})))
        of_seeds.setdefault(seeds, []).append(regime)
    seeds = "; of ".join(f"{', '.join(x)}: {seeds}" for seeds, x in of_seeds.items())
    seeds = f"Seeds of {seeds}" if len(of_seeds) > 1 else f"Seeds {next(iter(of_seeds))}"
    return (
        f"{markdown_table(head, rows)}\n\nMeans over seeds and half of their 95% intervals; differences are paired. "
        f"\\* p below {SURE}, corrected for all {len(p_values)} differences by Holm's method. "
        f"IoU of the trained M with the object: {'; '.join(overlaps)}. {STEPS} steps of batch 64. {seeds}. "
        f"{', '.join(sorted({r['hardware'] for r in records}))}; commit "
        f"{', '.join(sorted({r['commit'] for r in records}))}."
    )


def compared(records):
    """Returns what the gate from V gains on every other row, and how sure that is.

    Returns:
        {(regime, arm, taught by): `Summary` of the differences in top-1}, and {the same: its p-value, corrected for
        their number}.
    """
    differences = {}
    for regime, (arm, taught) in itertools.product(*_shown(records)):
        own, other = _top1(records, OWN, regime, taught or OTHERS), _top1(records, arm, regime, taught)
        if arm != OWN and (found := paired(own, other)) is not None:
            differences[regime, arm, taught] = found
    return differences, holm({of: found.p_value for of, found in differences.items() if found.p_value is not None})


def _shown(records):
    """Returns the regimes and the rows, (arm, taught by), that records have, in order."""
    regimes = [name for name in REGIMES if any(r["regime"] == name for r in records)]
    ordered = sorted(records, key=lambda record: list(ARMS).index(record["arm"]))
    return regimes, list(dict.fromkeys((r["arm"], r["taught"] if r["arm"] in TAUGHT else "") for r in ordered))


def gains(records, regime, of=OWN):
    """Returns {arm: what the arm `of`, with an extractor taught by other images, gains on it in points, as text}."""
    own = _top1(records, of, regime, OTHERS)
    return {arm: spread(paired(own, _top1(records, arm, regime, OTHERS)), "+") for arm in ARMS if arm != of}


def _top1(records, arm, regime, taught):
    """Returns {seed: top-1} of an arm; what has no extractor was not taught twice."""
    alike = [r for r in records if (r["arm"], r["regime"]) == (arm, regime)]
    return {r["seed"]: r["top1"] for r in alike if arm not in TAUGHT or r["taught"] == taught}


def spread(found, sign="", scale=100):
    """Returns the mean of a `Summary` of shares, in points, and half of its 95% interval as text; "" for None."""
    if found is None:
        return ""
    half = "" if found.interval is None else f" ± {scale * found.interval:.{1 if scale == 100 else 2}f}"
    return f"{scale * found.mean:{sign}.{1 if scale == 100 else 2}f}{half}"


def main(argv):
    del argv
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    known = {(r["arm"], r["regime"], r["seed"], r["taught"]) for r in records}
    taught = THE_SAME if flags.FLAGS.same else OTHERS
    for seed, regime, arm in itertools.product(SEEDS[: flags.FLAGS.seeds], flags.FLAGS.regimes or REGIMES, ARMS):
        if (arm, regime, seed, taught) in known or (flags.FLAGS.same and arm not in TAUGHT):
            continue
        extractor = same(regime, seed) if flags.FLAGS.same else flags.FLAGS.extractor
        record = measured(arm, regime, seed, extractor)
        records.append(record | {"taught": taught} | environment())
        print({k: record[k] for k in ("regime", "arm", "seed", "top1", "m_iou", "seconds") if k in record}, flush=True)
        RESULTS.write_text(json.dumps(records, indent=1) + "\n")


def same(regime, seed):
    """Returns the path of an extractor of the released one's settings, trained on the images of a regime and seed."""
    source = load_context(dataclasses.replace(CLASSIFIER, extractor=flags.FLAGS.extractor)).config
    data = load_dataset(dataclasses.replace(CLASSIFIER, **REGIMES[regime], seed=seed))
    epochs = round(source.epochs * 10_000 / len(data.train))
    config = dataclasses.replace(source, **REGIMES[regime], seed=seed, epochs=epochs, validation_fraction=0.0)
    folder = pathlib.Path(flags.FLAGS.out) / f"{regime} {seed}".replace(" ", "_")
    return str(trained(config, folder).path)


if __name__ == "__main__":
    flags.DEFINE_string("extractor", "zoo:shapes", "trained extractor that gates: runs/... or zoo:<name>")
    flags.DEFINE_boolean("same", False, "gate by extractors that the classifier's own images and labels have taught")
    flags.DEFINE_integer("seeds", 5, "how many seeds", lower_bound=1, upper_bound=5)
    flags.DEFINE_list("regimes", [], "which regimes; all if not given")
    flags.DEFINE_string("out", "runs/gate_pays", "folder for the extractors of --same")
    app.run(main)
