"""A table as a picture: what every row gains over the plain network, seed by seed."""

from cdc_keras.tables.systems import Row
from cdc_keras.visualize.figures import new_figure, save_figure

ROW_HEIGHT, WIDTH = 0.32, 9.0  # inches
OURS, PAPERS = "#1f5fa8", "#b3541e"


def plot(table, path):
    """Writes a PNG of a table that `assemble.assemble` made; nothing if it has no gain yet.

    Args:
        table: the dict.
        path: of the PNG.
    """
    shown = [row for row in table["rows"] if row.get("gains", {}).get("last")]
    if not shown:
        return
    figure = new_figure(WIDTH, ROW_HEIGHT * len(shown) + 1.3)
    ax = figure.subplots()
    for y, row in enumerate(reversed(shown)):
        gain = row["gains"]["last"]
        if gain["half"] is not None:
            ax.plot([gain["mean"] - gain["half"], gain["mean"] + gain["half"]], [y, y], color=OURS, linewidth=2)
        ax.plot(gain["mean"], y, "o", color=OURS, label="ours, mean and 95% interval" if y == 0 else None)
        if row["paper_gain"] is not None:
            first = not any(x["paper_gain"] is not None for x in list(reversed(shown))[:y])
            ax.plot(row["paper_gain"], y, "D", mfc="none", color=PAPERS, label="the paper's" if first else None)
    ax.axvline(0, color="0.6", linewidth=1)
    ax.set_yticks(range(len(shown)), [row["title"] for row in reversed(shown)], fontsize=8)
    plains = sorted({Row(*row["row"].split("+")).backbone for row in shown})
    ax.set_xlabel(f"test top-1, last epoch, minus plain {' and '.join(plains)}, points", fontsize=9)
    ax.set_ylim(-0.7, len(shown) - 0.3)
    seeds = sorted({len(row["seeds"]) for row in shown})
    note = "smoke test, " if table["smoke"] else ""
    ax.set_title(
        f"Table {table['table']}, {table['dataset']}: {note}{table['recipe']['epochs']} epochs, "
        f"seeds: {'-'.join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))}",
        fontsize=10,
    )
    ax.legend(fontsize=8, loc="best")
    save_figure(figure, path)
