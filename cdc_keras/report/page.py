"""report.html of a run: one file, to be read in any browser, with everything that shows how the run went."""

import base64
import html
import pathlib
import re
import shlex
import tempfile

import numpy as np

from cdc_keras.data.dataset import StreamSplit
from cdc_keras.runs import evaluation
from cdc_keras.visualize import figures
from cdc_keras.visualize.maps import attention_maps, iou, pointing
from cdc_keras.weights import write_text

EXTREME = 3  # classes at either end, with strips
EXAMPLES = 2  # images of each
STYLE = """
body { margin: 0 auto; max-width: 70rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: #222; }
nav { display: flex; flex-wrap: wrap; gap: 0 1rem; }
h1 { margin-bottom: 0; }
h1, p, li { overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.6rem; border: 1px solid #ddd; text-align: left; vertical-align: top; }
td:last-child { min-width: 7rem; }
th { background: #f4f4f4; }
@media (max-width: 50rem) { .wide img { max-width: none; } }
"""
READINGS = {
    "reconstruction_loss": "mean squared error of the reconstruction, images in [-1, 1]",
    "discriminator_accuracy": "how often D reads the category from T; chance is {chance:.1%}. Near chance it says that "
    "D is fooled, not that T is free of the category: ask fresh probes",
    "lambda_fool": "weight of the fooling loss, of {fool_weight:g} at the end of the ramp",
    "fooling_gradient_norm": "gradient of Eq. 1 at T; near 0 where D is confident, and then the encoder learns nothing "
    "from it",
    "repulsive_active": "share of the images on which the hinge of Eq. 2 is not zero; at 0 it does nothing",
}


def report(run_dir, *, plain=None, data_dir=None):
    """Writes `report.html` into a run folder and returns its path.

    Of an extractor: curves, health, reconstructions, swapped conditions and, where there is one, the audit. Of a
    classifier: curves, scores, confusion matrix, and strips of images of the best and the worst categories; where the
    objects' masks are known, as in `shapes`, how well the maps find them.

    Args:
        run_dir: path of a run folder with a checkpoint.
        plain: of a gated classifier, its plain counterpart, a run folder or "zoo:<name>".
        data_dir: where the data are now, if not where they were in training.

    Raises:
        UserError: the folder holds no such run, or the data are not there.
    """
    measured = evaluation.measure(run_dir, data_dir=data_dir, plain=plain)
    evaluation.write(measured)
    run, scores = measured.run, measured.scores
    config, about, rows = run.config(), run.notes(), run.rows()
    if rows:
        figures.curves(rows, run.pictures / "curves.png")  # training draws them now and then
    facts = {
        "what": f"{config.context.upper()} extractor" if config.task == "extractor" else _network(config),
        "data": f"{config.dataset}, {about['train_images']} training images of {config.image_size} px",
        "trained": f"{len(rows)} of {config.epochs} epochs, seed {config.seed}, {config.precision}",
        "on": about["hardware"],
        "commit": about["commit"] or "unknown",
    }
    sections = {"Run": _table(facts.items()), "Curves": _picture(run.pictures / "curves.png")}
    if config.classifies:
        sections |= _classifier(measured)
    else:
        sections |= _extractor(run, rows[-1] if rows else {}, config, scores)
    if config.task == "extractor":
        sections["Audit"] = _audit(run)
    path = run.path / "report.html"
    write_text(path, _page(run.path.resolve().name, sections))
    return path


def _network(config):
    if not config.gated:
        return f"{config.network}, plain"
    return f"{config.network}, gated by {pathlib.Path(config.extractor).name if config.gate_attention else 'R alone'}"


def _extractor(run, last, config, scores):
    known = {"chance": 1 / len(run.notes()["data"]["classes"]), "fool_weight": config.fool_weight}
    health = [(key, f"{last[key]:.4g}", text.format(**known)) for key, text in READINGS.items() if key in last]
    sections = {
        "Health": _table(health, ("reading", "last epoch", "meaning")),
        "Scores": _scores(scores),
        "Reconstructions": _picture(run.pictures / "reconstructions.png"),
    }
    if (run.pictures / "condition_swaps.png").is_file():
        text = "If T holds the category, the columns of a row look alike: the decoder needs no condition."
        sections["Swapped conditions"] = f"<p>{text}</p>{_picture(run.pictures / 'condition_swaps.png')}"
    return sections


def _audit(run):
    if (run.path / "audit.md").is_file():
        return f"{_from_markdown((run.path / 'audit.md').read_text())}{_picture(run.path / 'audit.png')}"
    command = f"cdc-keras audit --model={shlex.quote(str(run.path))}"
    return f"<p>Not made yet: {html.escape(command)}</p>"


def _classifier(measured):
    run, scores, dataset, network = measured.run, measured.scores, measured.dataset, measured.trainer.network
    plain = measured.plain and measured.plain.network
    sections = {"Scores": _scores(scores)}
    confused = [(x["true"], x["predicted"], x["count"]) for x in scores["most_confused"]]
    sections["Confusion"] = _picture(run.pictures / "confusion-test-last.png")
    sections["Confusion"] += _table(confused, ("category", "taken for", "times"))
    if isinstance(dataset.test, StreamSplit):
        sections["Categories"] = "<p>No strips: the test images are decoded on the way and not held.</p>"
        return sections
    networks = {"gated": network, "plain": plain} if measured.config.gated else {"gated": None, "plain": network}
    accuracy = _accuracies(measured.confusion)
    order = np.argsort(-accuracy, kind="stable")
    order = order[~np.isnan(accuracy[order])]  # a folder of test images need not have all categories
    for title, classes in (("Best categories", order[:EXTREME]), ("Worst categories", order[::-1][:EXTREME])):
        sections[title] = _strips(dataset, classes, accuracy, networks)
    if "mask" in dataset.test.factors:
        sections["Localisation"] = _localisation(dataset.test, networks)
    return sections


def _accuracies(counts):
    """Returns the share of each category's test images that are told right, (num_classes,); NaN of none."""
    with np.errstate(invalid="ignore"):
        return np.diagonal(counts) / counts.sum(axis=1)


def _strips(dataset, classes, accuracy, networks):
    rows = np.concatenate([np.flatnonzero(dataset.test.labels == c)[:EXAMPLES] for c in classes])
    part = dataset.test.take(rows)
    labels = [f"{dataset.class_names[c]} {accuracy[c]:.0%}" for c in part.labels]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "strip.png")
        masks = part.factors.get("mask")
        figures.strip(part.images, path=path, count=len(part), masks=masks, labels=labels, grad_cam=True, **networks)
        return _picture(path)


def _localisation(split, networks):
    """Returns the table of how well each map finds the object, over all images of a split."""
    masks, rows = split.factors["mask"], []
    maps = attention_maps(images=split.images, **networks)
    maps["a map that is the same everywhere"] = np.zeros(masks.shape)
    for name, values in maps.items():
        rows.append((name, f"{iou(values, masks).mean():.3f}", f"{pointing(values, masks).mean():.1%}"))
    text = (
        f"Means over {len(split)} test images. IoU is of the object and of the hottest part of the map, as large as "
        "the object; the pointing game asks whether the map is hottest on the object."
    )
    return f"<p>{text}</p>{_table(rows, ('map', 'IoU', 'pointing game'))}"


def _scores(scores):
    numbers = {k: v for k, v in scores.items() if isinstance(v, (int, float)) and k != "step"}
    return _table((key, f"{value:.6g}") for key, value in numbers.items())


def _table(rows, head=()):
    cell = lambda tag, values: "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values)  # noqa: E731
    lines = [f"<tr>{cell('th', head)}</tr>"] if head else []
    lines += [f"<tr>{cell('td', row)}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _picture(path):
    if not path.is_file():
        return "<p>There is none.</p>"
    content = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.stem.replace("_", " "))
    return f'<div class="wide"><img alt="{name}" src="data:image/png;base64,{content}"></div>'


def _from_markdown(text):
    """Returns as HTML the paragraphs, lists and tables of this library's Markdown, without heading and pictures."""
    parts = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.splitlines()
        if lines[0].startswith("#"):
            continue
        if lines[0].startswith("|"):
            cells = [[x.strip() for x in line.strip("|").split("|")] for line in lines]
            parts.append(_table(cells[2:], cells[0]))
        elif lines[0].startswith("* "):
            items = "".join(f"<li>{html.escape(line[2:])}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>")
        elif not lines[0].startswith("!"):
            parts.append(f"<p>{html.escape(' '.join(lines))}</p>")
    return "".join(parts)


def _page(name, sections):
    anchor = lambda title: re.sub(r"\W+", "-", title.lower())  # noqa: E731
    links = "".join(f'<a href="#{anchor(title)}">{html.escape(title)}</a>' for title in sections)
    body = "".join(
        f'<h2 id="{anchor(title)}">{html.escape(title)}</h2>{content}' for title, content in sections.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(name)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{html.escape(name)}</h1><nav>{links}</nav>{body}</body></html>\n"
    )
