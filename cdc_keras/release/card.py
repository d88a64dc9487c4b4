"""The card of a record: its README.md, made from what preset.json says."""

from cdc_keras.zoo.findings import described
from cdc_keras.zoo.record import DISENTANGLER, FLAGS

GIVES = {"extractor": "images -> T, the category-disentangled context", "classifier": "images -> logits"}


def card(record):
    """Returns the text of a record's README.md."""
    config, golden = record.run_config(), record.golden
    what = "context model" if record.kind == "extractor" else config.network
    context = f" It contains the extractor `{record.extractor.name}`." if record.extractor else ""
    pictures = [file for file in sorted(record.files) if file.endswith(".png")]
    lines = [
        f"# {record.name}",
        "",
        "<!-- Made from preset.json by cdc_keras.zoo.card.card; changes by hand are refused. -->",
        "",
        f"{record.kind.capitalize()} ({what}) for images of {config.image_size} px: {GIVES[record.kind]}.{context}",
        "",
        "```python",
        "from cdc_keras import zoo",
        "",
        f'model = zoo.load("{record.name}")  # images (B, {config.image_size}, {config.image_size}, 3) in [-1, 1]'
        f" -> (B, {', '.join(map(str, golden.shape[1:]))}), frozen",
        "```",
        "",
        f"Preprocessing: {record.preprocessing}.",
        "",
    ]
    lines += _scores(record.metrics) or ["It is a part of a classifier and has no scores of its own."]
    lines += ["", f"The paper's value: {record.paper or 'it has none for this model'}.", ""]
    if record.audit is not None:
        lines += ["How much of the category can be read from T, by `python -m cdc_keras.audit`:", ""]
        lines += [*described(record.audit), ""]
    facts = {
        "data": f"{record.dataset.name}, {record.dataset.train_images} training images, "
        f"{len(record.classes)} categories",
        "training": f"{record.epochs} epochs, seed {record.seed}, {record.hours:.2g} h on {record.hardware}; "
        f"all settings in [{FLAGS}]({FLAGS})"
        + ("" if config.precision == "float32" else f"; trained in {config.precision}, computes in float32"),
        "source": f"commit {record.commit or 'unknown'}; "
        + ", ".join(f"{package} {version}" for package, version in record.versions.items()),
        "parameters": f"{record.parameters:,}",
        "weights": f"{record.weights.file}, {record.weights.bytes:,} bytes, sha256 `{record.weights.sha256}`",
        "extraction network": f"{DISENTANGLER}, with decoder and discriminator, from which the scores are computed",
        "licence": record.licence,
        "created": record.created,
    }
    if not record.has_disentangler:
        del facts["extraction network"]
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]
    for file in pictures:
        lines += ["", f"![{file.removesuffix('.png')}]({file})"]
    return "\n".join(lines) + "\n"


def _scores(metrics):
    """Returns the table of a record's scores as lines of Markdown, none without scores."""
    if not metrics:
        return []
    head = ["score", "split", "these weights", "hold to", "mean of the runs", "runs", "seeds"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for metric in metrics:
        mean = f"{metric.mean:.4g}" + ("" if metric.std is None else f" ± {metric.std:.2g}")
        cells = [metric.name, metric.split, f"{metric.value:.4g}", f"{metric.tolerance:.2g}", mean, str(metric.n)]
        lines.append(f"| {' | '.join([*cells, ', '.join(map(str, metric.seeds))])} |")
    return lines
