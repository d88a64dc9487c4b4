"""The card of a record: its README.md, made from what preset.json says."""

from cdc_keras.markdown import markdown_table
from cdc_keras.zoo.findings import described, headline
from cdc_keras.zoo.record import DISENTANGLER, FLAGS

# Data set: whom its licence asks to name.
CREDITS = {
    "tf_flowers": "the photographs of tf_flowers (The TensorFlow Team, 2019) are by their authors on Flickr, who are "
    "named in the LICENSE.txt of the set, each under CC BY 2.0; they were cropped and resized"
}


def card(record):
    """Returns the text of a record's README.md."""
    parts = [
        f"# {record.name}",
        "<!-- Made from preset.json by cdc_keras.release.card; changes by hand are refused. -->",
        _summary(record),
        *_usage(record),
        *_scores(record),
    ]
    if record.audit is not None:
        parts.append("## How much of the category can be read from T")
        parts.append("\n".join(described(record.audit)))
        parts.append(f"`cdc-keras audit --model=zoo:{record.name}` makes the audit again.")
    parts.append("## Where it comes from")
    parts.append(markdown_table(("", ""), _facts(record).items()))
    pictures = [file for file in sorted(record.files) if file.endswith(".png")]
    parts += [f"![{file.removesuffix('.png')}]({file})" for file in pictures]
    return "\n\n".join(parts) + "\n"


def _summary(record):
    """Returns what the network is and the finding about it, as a paragraph."""
    config = record.run_config()
    data = f"{record.dataset.name} ({len(record.class_names)} categories, images of {config.image_size} px)"
    if record.kind == "extractor":
        shape = " x ".join(map(str, record.golden.shape[1:]))
        sentences = [
            f"An extractor, trained on {data}.",
            f"It turns an image into T, a feature map of {shape} that should describe everything but the category.",
            headline(record.audit) if record.audit else "",
        ]
    else:
        sentences = [f"A {config.network} classifier, trained on {data}."]
        sentences += [
            f"It is right for {metric.value:.2%} of the {metric.split} images."
            for metric in record.metrics
            if metric.name == "top1"
        ]
        if record.extractor:
            sentences.append(
                f"The context T of the extractor `{record.extractor.name}`, which it contains, gates its features."
            )
    return " ".join(sentence for sentence in sentences if sentence)


def _usage(record):
    """Returns how it is used in Python, as Markdown."""
    size = record.run_config().image_size
    lines = ["```python", "import cdc_keras", "", f'model = cdc_keras.zoo.load("{record.name}")  # frozen']
    lines.append(f"inputs = cdc_keras.preprocess_input(images)  # images: (B, {size}, {size}, 3) uint8")
    shape = f"(B, {', '.join(map(str, record.golden.shape[1:]))})"
    if record.kind == "extractor":
        lines.append(f"context = model.predict(inputs)  # T, {shape}")
    else:
        lines += [
            f"predictions = model.predict(inputs)  # logits, {shape}",
            f'cdc_keras.decode_predictions(predictions, "{record.name}", top=5)',
        ]
    return ["\n".join([*lines, "```"]), f"`preprocess_input` computes {record.preprocessing}."]


def _scores(record):
    """Returns the table of a record's scores and what holds for all of them, as Markdown."""
    parts = ["## Scores"]
    if record.metrics:
        columns = {
            "score": [metric.name for metric in record.metrics],
            "split": [metric.split for metric in record.metrics],
            "value": [f"{metric.value:.4g}" for metric in record.metrics],
            "tolerance": [f"{metric.tolerance:.2g}" for metric in record.metrics],
        }
        scored = "Scores of these weights."
        if len(set(columns["split"])) == 1:
            scored = f"Scores on the {columns.pop('split')[0]} split."
        if any(metric.n > 1 for metric in record.metrics):
            columns["mean ± deviation"] = [_mean(metric) for metric in record.metrics]
            columns["seeds"] = [", ".join(map(str, metric.seeds)) for metric in record.metrics]
        parts.append(markdown_table(columns, zip(*columns.values(), strict=True)))
        parts.append(f"{scored} Computed again elsewhere, they hold to the tolerance.")
    else:
        parts.append("It is a part of a classifier and has no scores of its own.")
    if record.paper:
        parts.append(f"The paper's value: {record.paper}.")
    return parts


def _mean(metric):
    return f"{metric.mean:.4g}" + ("" if metric.std is None else f" ± {metric.std:.2g}")


def _facts(record):
    """Returns {what: text} of the record's origin."""
    precision = record.run_config().precision
    facts = {
        "data": f"{record.dataset.name}, {record.dataset.train_images} training images",
        "training": f"{record.epochs} epochs, seed {record.seed}, {record.hours:.2g} h on {record.hardware}; "
        f"all settings in [{FLAGS}]({FLAGS})",
        "precision": "float32" if precision == "float32" else f"trained in {precision}, computes in float32",
        "commit": record.commit or "unknown",
        "versions": ", ".join(f"{package} {version}" for package, version in record.versions.items()),
        "parameters": f"{record.parameters:,}",
        "weights": f"{record.weights.file}, {record.weights.bytes:,} bytes, sha256 `{record.weights.sha256}`",
        "extraction network": f"{DISENTANGLER}, with decoder and discriminator, from which the scores are computed",
        "licence": record.licence,
        "credit": CREDITS.get(record.dataset.name),
        "created": record.created,
    }
    if not record.has_disentangler:
        del facts["extraction network"]
    return {what: text for what, text in facts.items() if text}
