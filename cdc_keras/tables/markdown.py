"""A table as Markdown."""

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
    """Returns a table as Markdown."""
    wide, mixed = table["table"] >= 4, len(table["hardware"]) > 1
    have = {reading for row in table["rows"] for reading in row["readings"]}
    head = ["network", "n", "validation", "last epoch", "best on validation", "best on test"]
    head += ["top-5, last"] if wide else []
    head += ["gain over plain", "paper", "paper's gain"]
    head += ["corrupted", "gain, corrupted"] if "corrupted" in have else []
    backgrounds = [name for name in BACKGROUNDS if name in have]
    head += [BACKGROUNDS[name] for name in backgrounds] + (["gap minus plain's"] if "gap" in have else [])
    head += ["weights trained", "images/s"] + (["hardware"] if mixed else [])
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for row in table["rows"]:
        r, gains = row["readings"], row.get("gains", {})
        cells = [row["title"], str(len(row["seeds"]))]
        cells += [spread(r.get(x)) for x in ("validation", "last", "chosen", "best")]
        cells += [spread(r.get("top5"))] if wide else []
        paper = row["paper"] if isinstance(row["paper"], (list, tuple)) else [row["paper"]]
        cells += [gain(gains.get("last")), " / ".join(f"{x:.2f}" for x in paper if x is not None)]
        cells += ["" if row["paper_gain"] is None else f"{row['paper_gain']:+.2f}"]
        cells += [spread(r.get("corrupted")), gain(gains.get("corrupted"))] if "corrupted" in have else []
        cells += [spread(r.get(name)) for name in backgrounds] + ([gain(gains.get("gap"))] if "gap" in have else [])
        trained = f"{row['trainable_parameters']:,}" if "trainable_parameters" in row else ""
        cells += [trained, f"{row['images_per_second']:.0f}" if row["seeds"] else ""]
        cells += ["; ".join(row.get("hardware", []))] if mixed else []
        lines.append(f"| {' | '.join(cells)} |")
    parts = [f"# Table {table['table']}, {table['dataset']}: {table['title']}", "", *_said(table), "", *lines]
    parts += ["", *_contexts(table), *_against(table), *_gate_table(table)]
    return "\n".join(parts).rstrip() + "\n"


def _said(table):
    """Returns what a reader has to know of the numbers, as lines."""
    recipe = ", ".join(f"{name} {_setting(value)}" for name, value in table["recipe"].items())
    lines = []
    if table["smoke"]:
        lines += ["**A smoke test: small networks, a few steps. Nothing here means anything.**", ""]
    lines += [
        "Test accuracy in percent, mean ± standard deviation over n seeds. Validation: of the last epoch on training "
        "images held out; by it settings are chosen. Gain: over our own plain network, paired by seed, last epoch, "
        "with its 95% interval (Student's t) over seeds: all have the same test images, contexts and teachers, and "
        "the interval says nothing of others; nor is it corrected for the number of rows. The paper's numbers are "
        f"those of its best test epoch, at its length{stand_ins(table['rows'])}.",
        "",
        f"All rows: {recipe}; {', '.join(f'{x:,}' for x in table['train_images'])} training images; "
        f"{'; '.join(table['hardware'])}; commit {', '.join(table['commits'])}; {', '.join(table['days'])}. images/s: "
        "of training, median over epochs, beside other work.",
    ]
    contexts = [context["settings"] for _, context in _contexts_of(table)]
    if any(s["validation_fraction"] < table["recipe"]["validation_fraction"] for s in contexts):
        lines += [
            "",
            "The contexts were trained on images that are held out here: gated networks build on more images than "
            "plain ones, and their validation images are not new to their contexts.",
        ]
    if table["corrupted_images"]:
        lines += [
            "",
            f"Corrupted: top-1 over the 15 common corruptions at severities 1 to 5 of {table['corrupted_images']:,} "
            "test images, the same for all rows of a seed.",
        ]
    if any("gap" in row["readings"] for row in table["rows"]):
        lines += [
            "",
            "Backgrounds: top-1 on the same shapes on other backgrounds, on none, and on backgrounds alone. The gap, "
            "mixed-same minus mixed-rand, is what a background of the right category is worth to the network.",
        ]
    if not all(row["seeds"] for row in table["rows"]):
        lines += ["", "Rows of n = 0 have not been trained yet."]
    return lines


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
    lines = []
    for title, context in _contexts_of(table):
        s = context["settings"]
        what = f"{s['context']}, {s['epochs']} epochs, batch {s['batch_size']}, weights {context['sha256'][:12]}"
        what += "".join(f", {k} {_setting(s[k])}" for k in differ if k in s and k not in always)
        lines.append((what, title))
    grouped = {what: [title for w, title in lines if w == what] for what, _ in lines}
    found = [f"* Context {what}: {'; '.join(titles)}." for what, titles in grouped.items()]
    found += [
        f"* {row['title']}: the teacher has {teacher['top1']:.1%} on {teacher['split']}."
        for row in table["rows"]
        for teacher in row.get("teachers", [])
    ]
    return [*found, ""] if found else []


def _against(table):
    """Returns what gated networks gain over others, as lines."""
    if not table["differences"]:
        return []
    titles = {row["row"]: row["title"] for row in table["rows"]}
    lines = [
        "| last epoch of | minus that of | mean of paired differences, 95% interval | n |",
        "|---|---|---:|---:|",
    ]
    for found in table["differences"]:
        of, n = found["last"], found["last"]["n"]
        lines.append(f"| {titles[found['row']]} | {titles[found['minus']]} | {gain(of)} | {n} |")
    return [*lines, ""]


def _gate_table(table):
    """Returns what the gates do, as lines."""
    gated = [row for row in table["rows"] if row.get("gate")]
    if not gated:
        return []
    lines = [
        f"What the gates do: means over seeds, on {gated[0]['gate']['images']:,.0f} test images. First the top-1, and "
        "what it changes by, with a 95% interval, if in the trained network R(F) = 0, if M or C are their means, if T "
        "is that of another image. M and C: mean, deviation within an image (over positions, over channels) and "
        "across images, and the share within 2% of an end. R: its root mean square over that of F'.",
        "",
        "| network | top-1 | R off | M constant | C constant | T shuffled | M: mean, within, across, saturated "
        "| C, by site: the same | R / F', by site |",
        "|---|" + "---:|" * 5 + "---|---|---|",
    ]
    for row in gated:
        gate = row["gate"]
        losses = [gain(row["gate_losses"].get(x)) for x in ("r_off", "m_constant", "c_constant", "t_shuffled")]
        cells = [row["title"], f"{100 * gate['top1']['as_is']:.2f}", *losses, _moves(gate["m"])]
        cells += ["; ".join(_moves(c) for c in (gate["c"] or {}).values())]
        cells += ["; ".join(f"{x:.2f}" for x in (gate["residual"] or {}).values())]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _moves(found):
    if not found:
        return ""
    return f"{found['mean']:.2f}, {found['within']:.3f}, {found['across']:.3f}, {found['saturated']:.0%}"


def stand_ins(rows):
    """Returns whose gains stand beside smaller networks in some of a table's rows, as the end of a sentence."""
    found = {row["row"].split("+")[0] for row in rows if row["paper_gain"] is not None}
    said = [f"beside {small} its gains are those of {full}" for small, full in STANDS_FOR.items() if small in found]
    return "".join(f"; {text}" for text in said)


def spread(found):
    """Returns a mean and its standard deviation over seeds as text; empty for None."""
    if found is None:
        return ""
    return f"{found['mean']:.2f}" + ("" if found["std"] is None else f" ± {found['std']:.2f}")


def gain(found):
    """Returns a mean difference and its 95% interval as text; empty for None."""
    if found is None:
        return ""
    if found["half"] is None:
        return f"{found['mean']:+.2f}"
    return f"{found['mean']:+.2f} ({found['mean'] - found['half']:+.2f} to {found['mean'] + found['half']:+.2f})"
