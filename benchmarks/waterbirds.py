"""Does a gate depend less on a background that misleads, on photographs? python -m benchmarks.waterbirds --data_dir=...

Waterbirds (Sagawa et al. 2020): in training, 95 of 100 waterbirds are on water and as many landbirds on land. The
groups of the test images are equally large, so that half of the backgrounds mislead. A slim VGG-13 is trained from
scratch at 32 px: plain, with R alone, gated, with every control of the gate, with squeeze-and-excitation, and on
images that a decoder painted under the other category. The extractor is taught by the same images and labels. Nothing
is told the place. Runs that are finished, or on record, are not made again. Writes docs/results/waterbirds.json, from
which `python -m docs.fill` makes a table of docs/photographs.md.
"""

import dataclasses
import itertools
import json
import pathlib

from absl import app, flags

from benchmarks.gate_pays import spread
from benchmarks.runs import trained
from cdc_keras.cli import quiet_libraries
from cdc_keras.config import RunConfig
from cdc_keras.flags import config_from_flags, parse, train
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment
from cdc_keras.runs.evaluation import measure
from cdc_keras.tables.statistics import paired, summary
from cdc_keras.visualize.maps import attention_maps, iou, of_another

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "waterbirds.json"
SEEDS = (1, 2, 3)
COMMON = {"dataset": "folder", "image_size": 32, "precision": "auto", "steps_per_call": 25}
EXTRACTOR = {"epochs": 28, "seed": 0}
# Of 0.005, 0.02 and 0.05 the rate at which plain has the best worst group of the validation images.
CLASSIFIER = RunConfig(task="classifier", network="vgg13_slim", epochs=20, batch_size=32, learning_rate=0.005, **COMMON)
OWN = "gated"
ARMS = {
    "plain": {},
    "R alone": {"gate_attention": False},
    OWN: {"extractor": True},
    "gated, T of another image": {"extractor": True, "gate_context": "shuffled"},
    "gated, untrained extractor": {"extractor": True, "gate_context": "untrained"},
    "gated, start from V": {"extractor": True, "gate_spread": True, "gate_init": "spread"},
    "squeeze-and-excitation": {"block_attention": "se"},
    "plain, half of the images painted under the other category": {"painter": True, "counterfactual_share": 0.5},
    "plain, half of them painted under their own": {
        "painter": True,
        "counterfactual_share": 0.5,
        "counterfactual_control": True,
    },
}
GROUPS = "bird", "place"
SAMPLE = 600  # test images in which the maps are compared with the masks
# Liu et al. 2021, "Just Train Twice", Table 1: worst group and average, by a ResNet-50 pretrained on ImageNet, %.
PUBLISHED = {"plain (ERM)": (72.6, 97.3), "JTT": (86.7, 93.3), "group DRO, which is told the place": (91.4, 93.5)}


def extractor(folder):
    """Returns the path of the extractor by the recipe counterfactual, trained below a folder if it is not there."""
    flagfile = f"--flagfile={ROOT / 'configs' / 'counterfactual.flags'}"
    config = config_from_flags(parse(train, [flagfile, "--task=extractor"]))
    config = dataclasses.replace(config, **COMMON, **EXTRACTOR, data_dir=flags.FLAGS.data_dir)
    return str(trained(config, folder / "extractor").path)


def measured(arm, seed, folder):
    """Returns the record of one training, scored on the test images."""
    settings = ARMS[arm] | {"seed": seed, "data_dir": flags.FLAGS.data_dir}
    settings |= {name: extractor(folder) for name in ("extractor", "painter") if name in settings}
    run = trained(dataclasses.replace(CLASSIFIER, **settings), folder / f"{arm} {seed}".replace(" ", "_"))
    found = measure(str(run.path), groups=GROUPS, backgrounds=True)
    sample = found.images.sample(0, SAMPLE)
    network, masks = found.trainer.network, sample.factors["mask"]
    maps = attention_maps(sample.images, **{"gated" if found.config.gated else "plain": network})
    return {
        "arm": arm,
        "seed": seed,
        **{name: found.scores[name] for name in ("top1", "groups", "backgrounds")},
        "iou": {name: float(iou(x, masks).mean()) for name, x in maps.items()},
        "iou_of_another": {name: float(iou(of_another(x), masks).mean()) for name, x in maps.items()},
        **found.run.published(),
    }


def table(records):
    """Returns the records as Markdown: a row for each arm, means over seeds, and what is published."""
    rows = []
    own = _of(records, OWN, _worst)
    for arm in ARMS:
        worst = _of(records, arm, _worst)
        if not worst:
            continue
        found = [worst, *(_of(records, arm, of) for of in (_average, _gap, _localised("iou")))]
        found.append(_of(records, arm, _localised("iou_of_another")))
        gain = "" if arm == OWN else spread(paired(own, worst), "+")
        rows.append([arm, len(worst), *(spread(summary(x.values())) for x in found), gain])
    for name, (worst, average) in PUBLISHED.items():
        rows.append(
            [f"*{name}, ResNet-50 pretrained on ImageNet*", "", f"*{worst:.1f}*", f"*{average:.1f}*", *[""] * 4]
        )
    head = ["network", "seeds", "worst group, %", "average, %", "background gap, points", "IoU of Grad-CAM, %"]
    head += ["of another image's, %", "gated minus this"]
    hardware, commits = (", ".join(sorted({str(record[key]) for record in records})) for key in ("hardware", "commit"))
    return (
        f"{markdown_table(head, rows)}\n\nMeans over seeds, and half of their 95% intervals; differences of "
        f"the worst group are paired. The average is over groups of equal size. The published figures are of Liu et "
        f"al. 2021, Table 1, and their average is weighted as in training. {CLASSIFIER.epochs} epochs, the extractor "
        f"{EXTRACTOR['epochs']}. {hardware}; commit {commits}."
    )


def _worst(record):
    return record["groups"]["worst_group"]["top1"]


def _average(record):
    return record["top1"]


def _gap(record):
    return record["backgrounds"]["gap"]


def _localised(key):
    return lambda record: next(value for name, value in record[key].items() if name.startswith("Grad-CAM"))


def _of(records, arm, value):
    return {record["seed"]: value(record) for record in records if record["arm"] == arm}


def main(argv):
    del argv
    quiet_libraries()
    records = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for seed, arm in itertools.product(SEEDS[: flags.FLAGS.seeds], ARMS):
        if (arm, seed) not in {(record["arm"], record["seed"]) for record in records}:
            records.append(measured(arm, seed, pathlib.Path(flags.FLAGS.out)) | {"environment": environment()})
            RESULTS.write_text(json.dumps(records, indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "folder of Waterbirds: train, val, test, masks and labels.csv", required=True)
    flags.DEFINE_integer("seeds", len(SEEDS), "how many seeds", lower_bound=1, upper_bound=len(SEEDS))
    flags.DEFINE_string("out", "runs/waterbirds", "folder for the runs")
    app.run(main)
