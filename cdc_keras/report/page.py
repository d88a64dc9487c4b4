"""report.html of a run: one file, to be read in any browser, with everything that shows how the run went."""

import pathlib
import shlex
import tempfile

import numpy as np

from cdc_keras.audit import summary
from cdc_keras.choices import record_name
from cdc_keras.devices.precision import keras_defaults
from cdc_keras.report import blocks
from cdc_keras.report.blocks import Section
from cdc_keras.runs import evaluation
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.groups import table
from cdc_keras.visualize import figures
from cdc_keras.visualize.maps import attention_maps, energy, iou, of_another, pointing
from cdc_keras.weights import make_folder, write_text

EXTREME = 3  # classes at either end, with strips
EXAMPLES = 2  # images of each
VARIANTS = 5  # images on other backgrounds
LOCALISED = 2000  # images in which the object is sought, at most
GROUPS = "The accuracy of the images with the same values. The average is weighted by the images of training."
HEALTH = {
    "reconstruction_loss": "The mean squared error of the reconstruction, for images in [-1, 1].",
    "discriminator_accuracy": "How often D reads the category from T; chance is {chance:.1%}. Near chance it says that "
    "D is fooled, not that T is free of the category. Fresh probes tell that: see the audit.",
    "lambda_fool": "The weight of the fooling loss, {fool_weight:g} at the end of the ramp.",
    "fooling_gradient_norm": "The gradient of Eq. 1 at T. Where D is confident it is near 0, and the encoder learns "
    "nothing from it.",
    "repulsive_active": "The share of the images on which the hinge of Eq. 2 is not zero. At 0 it does nothing.",
}


@keras_defaults()
def report(model, *, plain=None, data_dir=None, groups=(), backgrounds=False, out=None):
    """Writes `report.html` into a run folder, or into `out`, and returns its path.

    For an extractor it shows curves, health, reconstructions, swapped conditions and, where there is one, the audit.
    For a classifier it shows curves, scores, the confusion matrix, and strips of images of the best and the worst
    categories. Where the objects' masks are known, as in `shapes`, it tells how well the maps find them.

    Args:
        model: path of a run folder with a checkpoint.
        plain: of a gated classifier, its plain counterpart: a run folder or "zoo:<name>".
        data_dir: where the data are now, if not where they were in training.
        groups: of a classifier, columns by whose values its images are scored in groups, as for `evaluation.evaluate`.
        backgrounds: of a classifier, score and show the objects on other backgrounds, as for `evaluation.evaluate`.
        out: folder for the page, scores and pictures, if not that of the run.

    Raises:
        UserError: the folder holds no such run, the data are not there, or the page cannot be written.
    """
    run = RunFolder(model)
    run.config()  # a folder that is none is not made
    make_folder((run if out is None else RunFolder(out)).pictures)  # before minutes of scoring
    measured = evaluation.measure(model, data_dir=data_dir, plain=plain, groups=groups, backgrounds=backgrounds)
    written = evaluation.write(measured, out)
    config, epochs = measured.config, run.rows()
    sections = [_facts(run, config, epochs)]
    sections.append(Section("Curves", [blocks.panels(figures.curve_panels(epochs))]))
    if config.classifies:
        sections += _classifier(measured, written.pictures)
    else:
        sections += _extractor(measured, written.pictures, epochs[-1] if epochs else {})
    if config.task == "extractor":
        sections.append(Section("Audit", _audit(run)))
    path = written.path / "report.html"
    write_text(path, blocks.page(run.path.resolve().name, sections))
    return path


def _facts(run, config, epochs):
    """Returns the section on what was trained, on what, and for how long."""
    notes = run.notes()
    facts = {
        "network": f"{config.context.upper()} extractor" if config.task == "extractor" else _network(config),
        "data": f"{config.dataset}, {notes['train_images']} training images of {config.image_size} px",
        "trained": f"{len(epochs)} of {config.epochs} epochs, seed {config.seed}, {config.precision}",
        "hardware": notes["hardware"],
        "commit": notes["commit"] or "unknown",
    }
    return Section("Run", [blocks.table(facts.items())])


def _network(config):
    if not config.gated:
        return f"{config.network}, plain"
    if not config.gate_attention:
        return f"{config.network}, gated by R alone"
    return f"{config.network}, gated by {record_name(config.extractor) or pathlib.Path(config.extractor).name}"


def _extractor(measured, pictures, last):
    """Returns the sections of an extractor, given the folder of its pictures and the metrics of its last epoch."""
    values = {"chance": 1 / len(measured.dataset.class_names), "fool_weight": measured.config.fool_weight}
    health = [(key, f"{last[key]:.4g}", text.format(**values)) for key, text in HEALTH.items() if key in last]
    sections = [
        Section("Health", [blocks.table(health, ("metric", "last epoch", "meaning"))]),
        _scores(measured),
        Section("Reconstructions", [blocks.picture(pictures / "reconstructions.png")]),
    ]
    if (pictures / "condition_swaps.png").is_file():
        text = "If T holds the category, the columns of a row look alike: the decoder needs no condition."
        swaps = [blocks.text(text), blocks.picture(pictures / "condition_swaps.png")]
        sections.append(Section("Swapped conditions", swaps))
    return sections


def _audit(run):
    """Returns the blocks of the audit in a run folder."""
    path = run.path / summary.NUMBERS
    if not path.is_file():
        command = f"cdc-keras audit --model={shlex.quote(str(run.path))}"
        return [blocks.text(f"It has not been made yet. This command makes it: {command}")]
    audit = summary.summarized(summary.load_result(path))
    return [
        blocks.text(audit.introduction),
        blocks.table(audit.rows, audit.head),
        blocks.bullets(audit.remarks),
        blocks.picture(run.path / summary.FIGURE),
    ]


def _classifier(measured, pictures):
    """Returns the sections of a classifier, given the folder of its pictures."""
    network, dataset = measured.trainer.network, measured.dataset
    confused = [(x["true"], x["predicted"], x["count"]) for x in measured.scores["most_confused"]]
    confusion = [
        blocks.picture(pictures / f"confusion-{measured.name}.png"),
        blocks.table(confused, ("category", "taken for", "times")),
    ]
    sections = [_scores(measured), Section("Confusion", confusion)]
    if "groups" in measured.scores:
        head, rows = table(measured.scores["groups"])
        sections.append(Section("Groups", [blocks.text(GROUPS), blocks.table(rows, head)]))
    if measured.variants is not None:
        rows = evaluation.background_rows(measured.scores["backgrounds"])
        sections.append(Section("Backgrounds", [_variants(measured.variants), blocks.table(rows)]))
    networks = {"gated": None, "plain": network}
    if measured.config.gated:
        networks = {"gated": network, "plain": measured.plain and measured.plain.network}
    accuracy = _accuracies(measured.confusion)
    order = np.argsort(-accuracy, kind="stable")
    order = order[~np.isnan(accuracy[order])]  # a folder of test images need not have all categories
    for title, classes in extremes(order).items():
        sections.append(Section(title, [_strips(dataset.class_names, measured.images, classes, accuracy, networks)]))
    if "mask" in measured.images.factors:
        sections.append(Section("Localisation", _localisation(measured.images, networks)))
    return sections


def extremes(order):
    """Returns {title: the categories to show}, given them from best to worst; none is shown as both."""
    half = -(-len(order) // 2)
    parts = {"Best categories": order[:half][:EXTREME], "Worst categories": order[half:][::-1][:EXTREME]}
    return {title: classes for title, classes in parts.items() if len(classes)}


def _variants(variants):
    """Returns a picture of images on other backgrounds, a column for each kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "backgrounds.png")
        rows = np.linspace(0, len(variants["original"]) - 1, VARIANTS).astype(int)  # of a folder, of several categories
        figures.columns({name: variant.images[rows] for name, variant in variants.items()}, path)
        return blocks.picture(path)


def _accuracies(confusion):
    """Returns the share of each category's images that are classified right, (K,) of (K, K) counts; NaN of none."""
    with np.errstate(invalid="ignore"):
        return np.diagonal(confusion) / confusion.sum(axis=1)


def _strips(class_names, split, classes, accuracy, networks):
    """Returns a picture of `EXAMPLES` images of each of some classes."""
    rows = np.concatenate([np.flatnonzero(split.labels == c)[:EXAMPLES] for c in classes])
    images = split.take(rows)
    labels = [f"{class_names[c]} {accuracy[c]:.0%}" for c in images.labels]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "strip.png")
        masks = images.factors.get("mask")
        figures.strip(
            images.images, path=path, count=len(images), masks=masks, labels=labels, grad_cam=True, **networks
        )
        return blocks.picture(path)


def _localisation(split, networks):
    """Returns the blocks that tell how well each map finds the object, over images of a split."""
    split = split.sample(0, LOCALISED)
    masks = split.factors["mask"]
    maps = attention_maps(images=split.images, **networks)
    maps["a map that is the same everywhere"] = np.zeros(masks.shape)
    measures = {"IoU": iou, "pointing game": pointing, "energy inside": energy}
    rows = [
        (name, *(f"{of(x, masks).mean():.3f}" for of in measures.values() for x in (values, of_another(values))))
        for name, values in maps.items()
    ]
    text = (
        f"Means over {len(split)} test images, and beside each the same for the map of another image. IoU compares the "
        "object with the hottest part of the map that is as large as the object. The pointing game asks whether the "
        "map is hottest on the object. The energy inside is the share of the map that lies on the object."
    )
    head = ["map", *(title for name in measures for title in (name, "of another"))]
    return [blocks.text(text), blocks.table(rows, head)]


def _scores(measured):
    numbers = {key: x for key, x in measured.scores.items() if isinstance(x, (int, float)) and key != "step"}
    return Section("Scores", [blocks.table((key, f"{value:.6g}") for key, value in numbers.items())])
