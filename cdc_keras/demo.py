"""The whole method on one machine in a few minutes: cdc-keras demo --out=runs/demo (or make demo).

On `shapes`, whose training backgrounds give the category away, it trains an extractor, a small VGG plain and the same
VGG gated by the context, and asks fresh probes what the context still knows.
"""

import dataclasses
import json
import sys
import time

from cdc_keras.audit.audit import audit
from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.markdown import markdown_table
from cdc_keras.paths import expanded
from cdc_keras.runs.evaluation import evaluate
from cdc_keras.runs.training import train
from cdc_keras.weights import write_text

SHAPES = dict(dataset="shapes", background_bias=0.8, train_limit=6000, validation_fraction=0.15, steps_per_call=5)
EXTRACTOR = RunConfig(task="extractor", **SHAPES, epochs=6, batch_size=32, fool_weight=0.1, fool_ramp_fraction=0.3)
PLAIN = RunConfig(
    task="classifier", **SHAPES, network="vgg13_slim", epochs=5, batch_size=64, learning_rate=0.02, warmup_epochs=0.5
)


def demo(out, extractor=EXTRACTOR, plain=PLAIN):
    """Returns the demo's table as Markdown text, having trained into `out` and drawn the pictures there.

    Args:
        out: folder for the three runs; finished ones are not trained again.
        extractor, plain: configs of the extractor and of the plain classifier.
    """
    out = expanded(out)
    started = time.monotonic()
    gated = dataclasses.replace(plain, extractor=str(out / "extractor"))
    scores = {}
    for name, config in (("extractor", extractor), ("plain", plain), ("gated", gated)):
        print(f"== {name}", file=sys.stderr)
        if not train(config, out / name).finished:
            raise UserError("the demo was stopped; the same command goes on from there")
    evaluate(out / "extractor")
    for name in ("plain", "gated"):
        plain_run = out / "plain" if name == "gated" else None
        scores[name] = {s: evaluate(out / name, split=s, plain=plain_run) for s in ("validation", "test")}

    print("== audit", file=sys.stderr)
    # On test images, whose background says nothing of the category, or probes would read that.
    audited = audit(out / "extractor", classifier=out / "plain", seed=extractor.seed)
    text = _table(scores, audited["findings"])
    write_text(out / "demo.json", json.dumps({"accuracy": scores, "audit": audited}, indent=2) + "\n")
    write_text(out / "demo.md", text)
    pictures = [str(out / "extractor" / "audit.png"), *sorted(str(p) for p in out.glob("*/pictures/*.png"))]
    minutes = (time.monotonic() - started) / 60
    return text + f"\n{minutes:.1f} min. Pictures:\n" + "\n".join(f"  {p}" for p in pictures)


def _table(scores, findings):
    """Returns both halves of the result as Markdown tables."""
    splits = {"backgrounds as in training": "validation", "backgrounds independent of the category": "test"}
    rows = [
        (text, *(f"{scores[name][split]['top1']:.1%}" for name in ("plain", "gated"))) for text, split in splits.items()
    ]
    accuracies = markdown_table(("accuracy of the classifier on", "plain", "gated"), rows)
    read = {(x["target"], x["features"], x["reader"]): x for x in findings}
    targets = {"the category": "category", "the background's texture": "texture", "the background's hue": "hue"}
    rows = []
    for name, target in targets.items():
        pairs = [[read[target, features, kind] for kind in ("linear", "conv")] for features in ("context", "pixels")]
        cells = [", ".join(f"{x['accuracy']:.1%}" for x in pair) for pair in pairs]
        rows.append((name, *cells, f"{pairs[0][1]['chance']:.1%}"))
    head = ("a fresh probe reads", "from T (linear, conv)", "from pixels (linear, conv)", "chance")
    return f"{accuracies}\n\n{markdown_table(head, rows)}\n"
