"""A table as Markdown."""

from cdc_keras.markdown import markdown_table
from cdc_keras.tables.systems import STANDS_FOR

# Of the backgrounds challenge, by what a table says of them.
BACKGROUNDS = {
    "original": "original",
    "mixed_same": "mixed-same",
    "mixed_rand": "mixed-rand",
    "only_bg": "only background",
    "only_fg": "only foreground",
    "gap": "background gap",
}


def markdown(table):
    """Returns a table that `assemble.assemble` made as Markdown."""
    parts = [f"# Table {table['table']}, {table['dataset']}: {table['title']}", "", *_notes(table), ""]
    parts += [_results(table), "", *_contexts(table), *_against(table), *_gate_table(table)]
    return "\n".join(parts).rstrip() + "\n"


def _results(table):
    """Returns the table of accuracies."""
    with_top5, with_hardware = table["table"] >= 4, len(table["hardware"]) > 1
    scored = {score for row in table["rows"] for score in row["scores"]}
    backgrounds = [name for name in BACKGROUNDS if name in scored]
    head = ["network", "n", "validation", "last epoch", "best on validation", "best on test"]
    head += ["top-5, last"] if with_top5 else []
    head += ["gain over plain", "paper", "paper's gain"]
    head += ["corrupted", "gain, corrupted"] if "corrupted" in scored else []
    head += [BACKGROUNDS[name] for name in backgrounds] + (["gap minus plain's"] if "gap" in scored else [])
    head += ["weights trained", "images/s"] + (["hardware"] if with_hardware else [])
    rows = []
    for row in table["rows"]:
        scores, gains = row["scores"], row.get("gains", {})
        paper = row["paper"] if isinstance(row["paper"], (list, tuple)) else [row["paper"]]
        cells = [row["title"], len(row["seeds"])]
        cells += [spread(scores.get(x)) for x in ("validation", "last", "chosen", "best")]
        cells += [spread(scores.get("top5"))] if with_top5 else []
        cells += [gain(gains.get("last")), " / ".join(f"{x:.2f}" for x in paper if x is not None)]
        cells += ["" if row["paper_gain"] is None else f"{row['paper_gain']:+.2f}"]
        cells += [spread(scores.get("corrupted")), gain(gains.get("corrupted"))] if "corrupted" in scored else []
        cells += [spread(scores.get(name)) for name in backgrounds]
        cells += [gain(gains.get("gap"))] if "gap" in scored else []
        cells += [f"{row['trainable_parameters']:,}", f"{row['images_per_second']:.0f}"] if row["seeds"] else ["", ""]
        cells += ["; ".join(row.get("hardware", []))] if with_hardware else []
        rows.append(cells)
    return markdown_table(head, rows)


def _notes(table):
    """Returns what a reader has to know of the numbers, as lines."""
    recipe = ", ".join(f"{name} {_setting(value)}" for name, value in table["recipe"].items())
    warning = "**A smoke test: small networks, a few steps. Nothing here means anything.**"
    lines = [warning, ""] if table["smoke"] else []
    lines += [
        "Accuracies are those on test images, in percent: mean ± standard deviation over n seeds.",
        "",
        '* "Validation" is the accuracy of the last epoch on training images that were held out. Settings were '
        "chosen by it.",
        '* "Gain" is the difference from our own plain network at the last epoch, paired by seed. In brackets stands '
        "its 95% interval over the seeds, by Student's t. All seeds share the test images, contexts and teachers, so "
        "the interval does not cover others. p is the p-value of no gain by the same t, corrected for the number of "
        "rows with a gain by Holm's method. The interval is not corrected.",
        "* The paper's numbers are those of its best test epoch, after a training of its length."
        + stand_ins(table["rows"]),
        '* "images/s" is the speed of training while other work was running: the median over the epochs.',
    ]
    if table["corrupted_images"]:
        lines.append(
            f'* "Corrupted" is the mean accuracy on {table["corrupted_images"]:,} test images under the 15 common '
            "corruptions, at severities 1 to 5. The images are the same for all rows of a seed."
        )
    if any("gap" in row["scores"] for row in table["rows"]):
        lines.append(
            "* The columns on backgrounds give the accuracy on other shapes: on several backgrounds, on none, and on "
            "backgrounds alone. The gap is mixed-same minus mixed-rand. It tells how much the network gains by a "
            "background of the right category."
        )
    contexts = [context["settings"] for _, context in _contexts_of(table)]
    if any(s["validation_fraction"] < table["recipe"]["validation_fraction"] for s in contexts):
        lines.append(
            "* The contexts were trained on images that are held out here. So gated networks build on more images than "
            "plain ones, and their validation images are not new to their contexts."
        )
    if not all(row["seeds"] for row in table["rows"]):
        lines.append("* Rows of n = 0 have not been trained yet.")
    images = " or ".join(f"{count:,}" for count in table["train_images"])
    return [
        *lines,
        "",
        f"All rows have these settings: {recipe}. They were trained on {images} images. Hardware: "
        f"{'; '.join(table['hardware'])}. Commits: {', '.join(table['commits'])}. Days: {', '.join(table['days'])}.",
    ]


def _setting(value):
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _contexts_of(table):
    """Returns (title of a row, context of it) of all rows, an extractor as often as rows have it."""
    return [(row["title"], context) for row in table["rows"] for context in row.get("contexts", [])]


def _contexts(table):
    """Returns which extractors and teachers there were, as lines."""
    every = [context["settings"] for _, context in _contexts_of(table)]
    always = ("context", "epochs", "batch_size")
    differ = [k for k in dict.fromkeys(k for s in every for k in s) if len({_setting(s.get(k)) for s in every}) > 1]
    described = []
    for title, context in _contexts_of(table):
        s = context["settings"]
        what = f"{s['context']}, {s['epochs']} epochs, batch {s['batch_size']}, weights {context['sha256'][:12]}"
        what += "".join(f", {k} {_setting(s[k])}" for k in differ if k in s and k not in always)
        described.append((what, title))
    grouped = {what: [title for w, title in described if w == what] for what, _ in described}
    lines = [f"* Context {what}: {'; '.join(titles)}." for what, titles in grouped.items()]
    lines += [
        f"* {row['title']}: the teacher has {teacher['top1']:.1%} on {teacher['split']}."
        for row in table["rows"]
        for teacher in row.get("teachers", [])
    ]
    return [*lines, ""] if lines else []


def _against(table):
    """Returns what gated networks gain over others, as lines."""
    if not table["differences"]:
        return []
    titles = {row["row"]: row["title"] for row in table["rows"]}
    rows = [(titles[x["row"]], titles[x["minus"]], gain(x["last"]), x["last"]["n"]) for x in table["differences"]]
    head = ("last epoch of", "minus that of", "mean of paired differences, 95% interval, p by Holm", "n")
    return [markdown_table(head, rows), ""]


def _gate_table(table):
    """Returns what the gates do, as lines."""
    gated = [row for row in table["rows"] if row.get("gate")]
    if not gated:
        return []
    rows = []
    for row in gated:
        gate = row["gate"]
        losses = [gain(row["gate_losses"].get(x)) for x in ("r_off", "m_constant", "c_constant", "t_shuffled")]
        cells = [row["title"], f"{100 * gate['top1']['as_is']:.2f}", *losses, _moves(gate["m"])]
        cells += ["; ".join(_moves(c) for c in (gate["c"] or {}).values())]
        cells += ["; ".join(f"{x:.2f}" for x in (gate["residual"] or {}).values())]
        rows.append(cells)
    head = ["network", "top-1", "R off", "M constant", "C constant", "T shuffled", "M: mean, within, across, saturated"]
    head += ["C, by site: the same", "R / F', by site"]
    note = (
        f"What the gates do: means over seeds, on {gated[0]['gate']['images']:,.0f} test images. The columns behind "
        "top-1 tell how it changes when a part of the trained network is replaced, with a 95% interval. R(F) is set to "
        "0, M or C to its mean, and T to that of another image. For M and C follow four numbers: the mean, the "
        "deviation within an image (over positions, over channels), the deviation across images, and the share within "
        "2% of an end of the range. The last column is the root mean square of R over that of F'."
    )
    return [note, "", markdown_table(head, rows)]


def _moves(movement):
    """Returns what a gate's M or C does as text; empty for None."""
    if not movement:
        return ""
    mean, within, across, saturated = (movement[x] for x in ("mean", "within", "across", "saturated"))
    return f"{mean:.2f}, {within:.3f}, {across:.3f}, {saturated:.0%}"


def stand_ins(rows):
    """Returns whose gains stand beside smaller networks in some of a table's rows, as sentences behind another."""
    backbones = {row["row"].split("+")[0] for row in rows if row["paper_gain"] is not None}
    pairs = [(small, large) for small, large in STANDS_FOR.items() if small in backbones]
    return "".join(f" Beside {small} its gains are those of {large}." for small, large in pairs)


def spread(score):
    """Returns a mean and its standard deviation over seeds as text; empty for None."""
    if score is None:
        return ""
    return f"{score['mean']:.2f}" + ("" if score["std"] is None else f" ± {score['std']:.2f}")


def gain(difference):
    """Returns a mean difference, its 95% interval and, if it has one, its corrected p-value as text; empty for None."""
    if difference is None:
        return ""
    mean, half, p = difference["mean"], difference["half"], difference.get("p_holm")
    interval = "" if half is None else f" ({mean - half:+.2f} to {mean + half:+.2f})"
    return f"{mean:+.2f}{interval}" + ("" if p is None else f", p {p:.2g}")
