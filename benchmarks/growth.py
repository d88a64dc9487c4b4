"""What a training step, the start of an epoch and memory cost as a task grows, beside the growth that is expected.

    python -m benchmarks.growth

Four things grow, one at a time: categories, the side of the images, images, and replicas (logical devices, which share
this machine's cores and one batch). Every point is measured in a process of its own. Writes docs/results/growth.json
and docs/growth.png.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.training_step import Ours, Row
from benchmarks.turns import elsewhere, environment, processes
from cdc_keras.markdown import markdown_table

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
RESULTS, FIGURE = DOCS / "results" / "growth.json", DOCS / "growth.png"
IMAGES = 2_000  # where their number does not grow


@dataclasses.dataclass(frozen=True)
class Growth:
    """Something that grows.

    Attributes:
        sizes: how large it is measured.
        power: of its size, with which the time of a step should grow where it is large.
        rows: {title: size -> the `Row` that is trained}.
    """

    sizes: tuple[int, ...]
    power: int
    rows: dict[str, Callable]


GROWTHS = {
    "categories": Growth(
        (10, 100, 1_000, 10_000),
        0,
        {
            "ResNet-20": lambda n: Row("", "resnet20", 128, 10, classes=n),
            "extractor": lambda n: Row("", None, 32, 20, classes=n),
        },
    ),
    "side of an image": Growth(
        (32, 128, 224),
        2,
        {
            "VGG-13 slim": lambda n: Row("", "vgg13_slim", 8, 10, image_size=n),
            "extractor": lambda n: Row("", None, 8, 5, image_size=n),
        },
    ),
    "images": Growth((10_000, 100_000, 1_000_000), 0, {"VGG-13 slim": lambda n: Row("", "vgg13_slim", 128, 20)}),
    "replicas": Growth(
        (1, 2, 4),
        0,
        {
            "ResNet-20": lambda n: Row("", "resnet20", 128, 10),
            "extractor": lambda n: Row("", None, 32, 20),
        },
    ),
}


class Point:
    """Our training at one size, by rounds.

    Args:
        row: the `Row` that is trained.
        images: examples in the split.
        replicas: logical devices.
    """

    def __init__(self, row, images, replicas):
        import tensorflow as tf

        if replicas > 1:
            devices = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        self.ours = Ours(row, images, steps_per_call=1, strategy="mirrored" if replicas > 1 else "none")

    def __call__(self, number):
        """Returns (seconds of a step, seconds from the beginning of an epoch to its first step's)."""
        row, started = self.ours.row, time.perf_counter()
        step = row.batch_size / self.ours(number, row.steps)
        return step, time.perf_counter() - started - (row.steps + 1) * step


def measure(growth, size, row, rounds):
    """Returns {"step": [seconds of every round], "start": [seconds], "mib": peak memory} of one point."""
    images = size if growth is GROWTHS["images"] else IMAGES
    replicas = size if growth is GROWTHS["replicas"] else 1
    with processes(f"{row.network} {size}", {"ours": (Point, (row, images, replicas), {})}) as asks:
        found = [asks["ours"](number=number) for number in range(rounds + 1)][1:]
        steps, starts = zip(*found, strict=True)
        return {"step": steps, "start": starts, "mib": asks["ours"]()}


def table(measured):
    """Returns what was measured as a Markdown table.

    Args:
        measured: {what grows: {title: {size as text: what `measure` gives}}}.
    """
    rows = []
    for what, of_titles in measured.items():
        for title, points in of_titles.items():
            sizes = sorted(map(int, points))
            smallest, largest = ends = [points[str(size)] for size in (sizes[0], sizes[-1])]
            times, start = ([statistics.median(end[part]) for end in ends] for part in ("step", "start"))
            rows.append(
                (
                    what,
                    f"{sizes[0]:,} to {sizes[-1]:,}",
                    title,
                    f"{1e3 * times[0]:,.0f} to {1e3 * times[1]:,.0f}",
                    f"{times[1] / times[0]:.2f}",
                    f"{(sizes[-1] / sizes[0]) ** GROWTHS[what].power:,.0f}",
                    f"{start[0]:.2f} to {start[1]:.2f}",
                    f"{smallest['mib']:,.0f} to {largest['mib']:,.0f}",
                )
            )
    heads = (
        "what grows",
        "from, to",
        "training",
        "a step, ms",
        "times",
        "expected",
        "an epoch's start, s",
        "peak, MiB",
    )
    return markdown_table(heads, rows)


def figure(measured):
    """Returns the figure: of everything that grows a panel, a step's time by the size, and the growth expected."""
    from cdc_keras.visualize.figures import new_figure

    drawn = new_figure(11, 3)
    for axes, (what, of_titles) in zip(drawn.subplots(1, len(measured)), measured.items(), strict=True):
        for title, points in of_titles.items():
            sizes = sorted(map(int, points))
            times = [1e3 * statistics.median(points[str(size)]["step"]) for size in sizes]
            (line,) = axes.plot(sizes, times, marker="o", label=title)
            expected = [times[-1] * (size / sizes[-1]) ** GROWTHS[what].power for size in sizes]
            axes.plot(sizes, expected, color=line.get_color(), linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel=what, ylim=(10, 20_000))
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.set_xticks([], minor=True)
        axes.legend(fontsize="small")
    drawn.axes[0].set_ylabel("a training step, ms")
    return drawn


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds of each point, at least 1")
    parser.add_argument("--grows", nargs="+", choices=GROWTHS, default=list(GROWTHS), help="what; all by default")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="JSON file for every measurement")
    arguments = parser.parse_args(argv)
    measured = {}
    for what in arguments.grows:
        growth = GROWTHS[what]
        for title, row in growth.rows.items():
            for size in growth.sizes:
                point = measure(growth, size, row(size), arguments.rounds)
                measured.setdefault(what, {}).setdefault(title, {})[str(size)] = point
                print(f"{what} {size:,}, {title}: {1e3 * statistics.median(point['step']):,.0f} ms", file=sys.stderr)
    print(table(measured))
    record = {"rounds": arguments.rounds, "environment": elsewhere(environment), "measured": measured}
    arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    if arguments.out == RESULTS:
        from cdc_keras.visualize.figures import save_figure

        save_figure(figure(measured), FIGURE)


if __name__ == "__main__":
    main()
