"""The audit for people: its table with what belongs to it, and its figure."""

import dataclasses

from cdc_keras.audit import scenes
from cdc_keras.errors import UserError
from cdc_keras.markdown import markdown_table
from cdc_keras.visualize.figures import new_figure, save_figure
from cdc_keras.zoo import findings as zoo_findings
from cdc_keras.zoo.findings import READERS, TARGETS, Audit, features_title
from cdc_keras.zoo.strict import parse, read_json

NUMBERS, TEXT, FIGURE = "audit.json", "audit.md", "audit.png"


@dataclasses.dataclass(frozen=True)
class Summary:
    """An audit in words.

    Attributes:
        introduction: the finding, and how it was measured.
        head, rows: the titles and the cells of its table, as text.
        remarks: what belongs to the table, as sentences.
    """

    introduction: str
    head: list[str]
    rows: list[list[str]]
    remarks: list[str]


def load_result(path):
    """Returns the content of an audit.json, a dict whose audit is known to be one.

    Raises:
        UserError: it is none, naming the key that is wrong or missing.
    """
    result = read_json(path.read_bytes(), path)
    try:
        audit_of(result)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return result


def audit_of(result):
    """Returns the `Audit` in the dict that `audit.audit` returns."""
    fields = [field.name for field in dataclasses.fields(Audit)]
    return parse(Audit, {name: result[name] for name in fields if name in result}, "audit")


def summarized(result):
    """Returns the `Summary` of the dict that `audit.audit` returns or `load_result` reads."""
    audit = audit_of(result)
    head, rows = zoo_findings.table(audit.findings)
    errors = [
        f"Reconstruction MSE from {features_title(name)}: {error['mean']:.4f} ({error['low']:.4f} to "
        f"{error['high']:.4f})."
        for name, error in result.get("reconstruction_mse", {}).items()
    ]
    for name, found in result.get("scenes", {}).items():
        errors += scenes.sentences(name, found)
    introduction = f"{zoo_findings.headline(audit)} {zoo_findings.introduction(audit)}".strip()
    return Summary(
        introduction, head, rows, [*zoo_findings.remarks(audit), *errors, *map(str, result.get("notes", ()))]
    )


def text(result):
    """Returns the dict that `audit.audit` returns as Markdown text, for a file beside the figure."""
    summary = summarized(result)
    lines = [f"# Audit on {result['dataset']}", "", summary.introduction, ""]
    lines += [markdown_table(summary.head, summary.rows), "", *(f"* {remark}" for remark in summary.remarks)]
    return "\n".join([*lines, "", f"![audit]({FIGURE})"]) + "\n"


def draw(findings, path):
    """Writes a panel for each target that probes read: the accuracies from all features with intervals, and chance.

    Args:
        findings: the `Finding`s of an audit.
        path: PNG to write.
    """
    findings = [x for x in findings if x.reader != "classifier"]
    targets = list(dict.fromkeys(x.target for x in findings))
    features = list(dict.fromkeys(x.features for x in findings))
    figure = new_figure(1.5 + 4.5 * len(targets), 4.5)
    axes = figure.subplots(1, len(targets), squeeze=False, sharey=True)[0]
    for ax, target in zip(axes, targets, strict=True):
        of_target = [x for x in findings if x.target == target]
        readers = [name for name in READERS if any(x.reader == name for x in of_target)]
        for i, name in enumerate(features):
            shown = [x for x in of_target if x.features == name]
            side = 0.7 * ((i + 0.5) / len(features) - 0.5)
            ax.errorbar(
                [readers.index(x.reader) + side for x in shown],
                [100 * x.accuracy for x in shown],
                [[100 * (x.accuracy - x.low) for x in shown], [100 * (x.high - x.accuracy) for x in shown]],
                fmt="o",
                markersize=4,
                capsize=3,
                color=f"C{i}",
                label=features_title(name),
            )
        ax.axhline(100 * of_target[0].chance, color="gray", linestyle="--", label="chance")
        ax.set_title(TARGETS.get(target, target))
        ax.set_xticks(range(len(readers)), [READERS[name] for name in readers])
        ax.set_xlim(-0.5, len(readers) - 0.5)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("accuracy on images not trained on, %")
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    save_figure(figure, path)
