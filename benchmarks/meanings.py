"""Does T mean the same in every category? python -m benchmarks.meanings

A T that is free of the category may still say "turned by 30 degrees" in one way for crescents and in another for
arrows: nothing in it tells which way is meant but the category, which the decoder knows. What is decoded under another
category is then turned against the truth. So scenes of `shapes` are decoded under every category, and compared with
the truth turned by every multiple of 15 degrees. For each pair of categories the turn that fits best says how far
their meanings are apart. Writes docs/results/meanings.json; docs/fill.py makes the table.
"""

import json
import pathlib

import numpy as np
from absl import app, flags

from cdc_keras.audit import decoding
from cdc_keras.cli import quiet_libraries
from cdc_keras.data.scenes import CLASS_NAMES, draw_scenes, render
from cdc_keras.markdown import markdown_table
from cdc_keras.runs.environment import environment
from cdc_keras.runs.trained import load_disentangler

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "meanings.json"
TURNS = 24
SCENES = 1000
SEED = 7
CRESCENT, SQUARE, CROSS = map(CLASS_NAMES.index, ("crescent", "square", "cross"))


def errors(disentangler, scenes=SCENES, turns=TURNS):
    """Returns the labels (N,), and the MSE of each scene decoded under each category with each turn of the truth.

    Args:
        disentangler: a trained `Disentangler`.
        scenes: N, number of scenes.
        turns: of the truth, evenly spaced, the first none.

    Returns:
        Labels, (N,), and errors, (N, categories, turns).
    """
    labels, foregrounds, backgrounds = draw_scenes(np.random.default_rng(SEED), scenes, background_bias=0.0)

    def drawn(categories, turn=0):
        turned = foregrounds | {"rotation": foregrounds["rotation"] + np.float32(2 * np.pi * turn / turns)}
        return render(categories, turned, backgrounds, np.random.default_rng(SEED), image_size=32).images

    context = decoding.contexts(disentangler.encoder, drawn(labels))
    found = np.empty((scenes, len(CLASS_NAMES), turns))
    for category in range(len(CLASS_NAMES)):
        under = np.full(scenes, category, np.int32)
        for turn in range(turns):
            truth = drawn(under, turn)
            found[:, category, turn] = decoding.reconstruction_errors(disentangler, truth, context, under)
    return labels, found


def by_pair(labels, found):
    """Returns (mean errors, those of the turn that fits best, that turn in degrees), each (own category, decoded)."""
    means = np.stack([found[labels == own].mean(axis=0) for own in range(found.shape[1])])
    best = means.argmin(axis=-1)
    degrees = (best * 360 / means.shape[-1] + 180) % 360 - 180
    return means[..., 0], means.min(axis=-1), degrees


def table(record):
    """Returns what was found as Markdown: means over the pairs of categories, those that differ by themselves."""
    plain, turned, degrees = (np.array(record[name]) for name in ("error", "error_when_turned", "degrees"))
    own = np.eye(len(plain), dtype=bool)
    crescent, square = np.zeros_like(own), np.zeros_like(own)
    crescent[CRESCENT] = crescent[:, CRESCENT] = True
    square[SQUARE, CROSS] = square[CROSS, SQUARE] = True
    groups = {
        "its own category": own,
        "another: from or to a crescent": ~own & crescent,
        "another: a square as a cross, or a cross as a square": square,
        "another: all other pairs": ~own & ~crescent & ~square,
        "another: all pairs": ~own,
    }
    rows = [
        (name, f"{plain[g].mean():.3f}", f"{turned[g].mean():.3f}", f"{np.median(abs(degrees[g])):.0f}°")
        for name, g in groups.items()
    ]
    head = ["decoded under", "error", "error beside the truth turned as fits best", "that turn, median"]
    return (
        f"{markdown_table(head, rows)}\n\nThe extractor is {record['extractor']}, and the scenes are "
        f"{record['scenes']} fresh ones. The turn is one for each pair of categories. {record['hardware']}; commit "
        f"{record['commit']}."
    )


def main(argv):
    del argv
    quiet_libraries()
    place = flags.FLAGS.extractor
    plain, turned, degrees = (x.tolist() for x in by_pair(*errors(load_disentangler(place))))
    record = {"extractor": place, "scenes": SCENES, "categories": CLASS_NAMES}
    record |= {"error": plain, "error_when_turned": turned, "degrees": degrees, **environment()}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    flags.DEFINE_string("extractor", "zoo:shapes", "trained extractor of `shapes`: runs/... or zoo:<name>")
    app.run(main)
