"""The audit for people: its table with what belongs to it, and its figure."""

from cdc_keras.visualize.figures import new_figure, save_figure
from cdc_keras.zoo import findings as all_readings


def text(result, audit, figure):
    """Returns the audit as Markdown text.

    Args:
        result: the dict that `audit.audit` returns.
        audit: the `Audit` in it.
        figure: name of the file with the figure.
    """
    lines = [f"# Audit on {result['dataset']}", "", *all_readings.described(audit)]
    for source, error in result["reconstruction_mse"].items():
        lines.append(
            f"* Reconstruction MSE from {all_readings.words(source)}: {error['mean']:.4f} "
            f"({error['low']:.4f} to {error['high']:.4f})."
        )
    lines += [f"* {note}" for note in result["notes"]]
    return "\n".join([*lines, "", f"![audit]({figure})"]) + "\n"


def draw(readings, path):
    """Writes a panel for each target that probes read: every source's accuracies with intervals, and chance.

    Args:
        readings: the `Reading`s of an audit.
        path: PNG to write.
    """
    readings = [r for r in readings if r.reader != "classifier"]
    targets = list(dict.fromkeys(r.target for r in readings))
    sources = list(dict.fromkeys(r.source for r in readings))
    figure = new_figure(1.5 + 4.5 * len(targets), 4.5)
    axes = figure.subplots(1, len(targets), squeeze=False, sharey=True)[0]
    for ax, target in zip(axes, targets, strict=True):
        here = [r for r in readings if r.target == target]
        readers = [name for name in all_readings.READERS if any(r.reader == name for r in here)]
        for i, source in enumerate(sources):
            shown = [r for r in here if r.source == source]
            side = 0.7 * ((i + 0.5) / len(sources) - 0.5)
            ax.errorbar(
                [readers.index(r.reader) + side for r in shown],
                [100 * r.accuracy for r in shown],
                [[100 * (r.accuracy - r.low) for r in shown], [100 * (r.high - r.accuracy) for r in shown]],
                fmt="o",
                markersize=4,
                capsize=3,
                color=f"C{i}",
                label=all_readings.words(source),
            )
        ax.axhline(100 * here[0].chance, color="gray", linestyle="--", label="chance")
        ax.set_title(all_readings.TARGETS.get(target, target))
        ax.set_xticks(range(len(readers)), [all_readings.READERS[name] for name in readers])
        ax.set_xlim(-0.5, len(readers) - 0.5)
        ax.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("accuracy on images not trained on, %")
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    save_figure(figure, path)
