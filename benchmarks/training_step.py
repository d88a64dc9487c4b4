"""Our training steps beside the same in plain PyTorch on the same cores: images/s, time spent on input, peak memory.

    python -m benchmarks.training_step --out training_step.json

Ours is what `cdc-keras train` does: the model of `trainers.build`, `model.fit`, and the input path of `data.pipeline`.
The peer is `torch_peers.py`. Both have the whole split in memory and as many threads as there are cores. Each runs in
a process of its own, and they take turns, one round each, so that whatever else the machine does meets both; rates are
medians over the rounds, ratios are medians of the rounds' ratios. The first steps of a round are not timed. To see
what we spend on input, our process also takes turns with itself on one batch that lies ready. The row "gate" sets a
gated network beside the same without gate, and what the gate adds in time beside what it adds in multiply-adds; it
needs no peer.

PyTorch is not among the requirements; `make bench` installs it.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import time

from cdc_keras.markdown import markdown_table

# Before Keras is imported, by the functions below; under TensorFlow a batch is a step, and the input path is tf.data.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGE_SIZE, CLASSES = 32, 100
INPUT_BAR, MEMORY_BAR = 0.02, 1.0
CORES = os.cpu_count()


@dataclasses.dataclass(frozen=True)
class Row:
    """One training to measure.

    Attributes:
        title: for people.
        network: name of a classifier; None is the extractor.
        batch_size: images a step.
        steps: timed steps of a round.
        bar: ours over the peer's images/s is to be at least this; of the gate, its time over that of its multiply-adds
            at most this.
    """

    title: str
    network: str | None
    batch_size: int
    steps: int
    bar: float


ROWS = {
    "resnet20": Row("ResNet-20", "resnet20", 128, 20, 1.0),
    "wrn16_4": Row("WRN-16-4", "wrn16_4", 128, 3, 1.0),
    "vgg13": Row("VGG-13", "vgg13", 128, 5, 1.0),
    "gate": Row("VGG-13 slim, gated", "vgg13_slim", 128, 20, 1.1),
    "extractor32": Row("extractor, batch 32", None, 32, 40, 1.5),
    "extractor64": Row("extractor, batch 64", None, 64, 30, 1.5),
}


def data(images):
    """Returns (images, labels): noise of the shape of CIFAR-100."""
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(images, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return pixels, rng.integers(CLASSES, size=images).astype(np.int32)


class Ours:
    """The training of `cdc-keras train`, by rounds."""

    def __init__(self, row, images, steps_per_call, gated=False, **config):
        import tensorflow as tf

        from cdc_keras.devices import precision

        self.row, self.steps_per_call = row, steps_per_call
        self.config = config_of(row, gated, steps_per_call=steps_per_call, **config)
        precision.share_cores(self.config)
        self.model = model_of(self.config, images // row.batch_size)
        from cdc_keras.data.dataset import Split

        self.split = Split(*data(images))
        batch = next(iter(self.batches(0)))
        self.constant = tf.data.Dataset.from_tensors(batch).repeat()

    def batches(self, epoch):
        from cdc_keras.data.pipeline import training_batches

        return training_batches(
            self.split,
            IMAGE_SIZE,
            steps_per_call=self.steps_per_call,
            batch_size=self.row.batch_size,
            seed=0,
            epoch=epoch,
            crop_padding=self.config.crop_padding,
            flip=self.config.flip,
        )

    def __call__(self, number, steps, constant=False):
        """Returns the images/s of a round, by the clock between the ends of its first and its last call."""
        import keras

        ends = []
        clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
        calls = -(-steps // self.steps_per_call)
        self.model.fit(
            self.constant if constant else self.batches(number),
            steps_per_epoch=(calls + 1) * self.steps_per_call,
            callbacks=[clock],
            shuffle=False,
            verbose=0,
        )
        return calls * self.steps_per_call * self.row.batch_size / (ends[-1] - ends[0])


class Peer:
    """The same training in PyTorch, by rounds."""

    def __init__(self, row, images, steps_per_call):
        del steps_per_call
        import torch

        from benchmarks import torch_peers

        torch.set_num_threads(CORES)
        torch.manual_seed(0)
        self.row, self.padding = row, 0 if row.network is None else IMAGE_SIZE // 8
        if row.network is None:
            self.step = torch_peers.ExtractorStep(CLASSES)
        else:
            self.step = torch_peers.ClassifierStep(torch_peers.network(row.network, CLASSES), learning_rate=0.001)
        pixels, labels = data(images)
        self.images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels).long()

    def __call__(self, number, steps):
        """Returns the images/s of a round, by the clock between the ends of its first and its last step."""
        from benchmarks import torch_peers

        ends, metrics = [], []
        batches = torch_peers.batches(self.images, self.labels, self.row.batch_size, padding=self.padding, seed=number)
        for _, (images, labels) in zip(range(steps + 1), batches, strict=False):
            metrics.append(self.step(images, labels))
            ends.append(time.perf_counter())
        return steps * self.row.batch_size / (ends[-1] - ends[0])


def config_of(row, gated, **config):
    """Returns the resolved `RunConfig` of a row, with more of its settings."""
    from cdc_keras.config import RunConfig

    config["task"] = "extractor" if row.network is None else "classifier"
    if row.network is not None:
        config |= {"network": row.network, "extractor": "untrained" if gated else None}
    return RunConfig(batch_size=row.batch_size, **config).resolved(IMAGE_SIZE)


def model_of(config, steps_per_epoch):
    """Returns the model that `cdc-keras train` would train, the context of a gate from an untrained extractor."""
    from cdc_keras.networks import autoencoder
    from cdc_keras.trainers.build import build

    extractor = autoencoder.encoder(IMAGE_SIZE) if config.gated else None
    return build(config, CLASSES, steps_per_epoch, extractor=extractor)


def multiply_adds(row):
    """Returns how many times the multiply-adds of the plain network's step the gated one's has.

    A step has three times those of the forward pass, but of the frozen extractor only the forward pass itself.
    """
    from cdc_keras import complexity
    from cdc_keras.networks.layers import FrozenExtractor

    gated, plain = (model_of(config_of(row, gated), 1000).network for gated in (True, False))
    extractor = sum(complexity.macs(layer.network) for layer in gated.layers if isinstance(layer, FrozenExtractor))
    forward = complexity.macs(gated, products=True)
    return (3 * (forward - extractor) + extractor) / (3 * complexity.macs(plain, products=True))


SIDES = {"ours": (Ours, {}), "peer": (Peer, {}), "gated": (Ours, {"gated": True}), "plain": (Ours, {})}


@contextlib.contextmanager
def processes(title, sides):
    """The context in which every side works in a process of its own; gives {side: ask}.

    `ask(**asked)` has a side do a round, and returns what it returns; `ask()` ends its process and returns its peak
    memory, MiB.

    Args:
        title: of the row, named where a process ends early.
        sides: {side: (what makes what is asked, arguments, keyword arguments)}.
    """
    context = multiprocessing.get_context("spawn")
    asks, started = {}, []

    def asker(end):
        def ask(**asked):
            end.send(asked)
            return end.recv()

        return ask

    try:
        for side, made in sides.items():
            end, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, *made), daemon=True)
            process.start()
            started.append(process)
            other.close()
            end.recv()
            asks[side] = asker(end)
        yield asks
    except EOFError:
        raise SystemExit(f"error: a process of the row {title!r} ended early; its message is above") from None
    finally:
        for process in started:
            process.terminate()
            process.join()


def _serve(connection, make, arguments, keywords):
    asked_of = make(*arguments, **keywords)
    connection.send("ready")
    while asked := connection.recv():
        connection.send(asked_of(**asked))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(row, *, rounds, steps, images, steps_per_call):
    """Returns what a row gives: {"rates": {side: [images/s of every round]}, "peak_mib": {side: MiB}, ...}.

    Args:
        row: a `Row`.
        rounds: measured rounds of every side; one more warms up.
        steps: timed steps of a round.
        images: examples in the split.
        steps_per_call: our steps in one compiled call.
    """
    gate = row is ROWS["gate"]
    sides = ("gated", "plain") if gate else ("ours", "peer")
    turns = [(side, False) for side in sides] if gate else [("ours", False), ("ours", True), ("peer", False)]
    rates = {side + " on a ready batch" * constant: [] for side, constant in turns}
    made = {side: (SIDES[side][0], (row, images, steps_per_call), SIDES[side][1]) for side in sides}
    with processes(row.title, made) as asks:
        for number in range(rounds + 1):
            for side, constant in turns if number % 2 else turns[::-1]:
                timed = steps if number else min(steps, 2)
                rate = asks[side](number=number, steps=timed, **({"constant": True} if constant else {}))
                if number:
                    rates[side + " on a ready batch" * constant].append(rate)
        result = {"rates": rates, "peak_mib": {side: asks[side]() for side in sides}}
        if gate:
            result["multiply_adds"] = elsewhere(multiply_adds, row)
        return result


def elsewhere(function, *arguments):
    """Returns what a function returns in another process: this one never loads TensorFlow."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def environment():
    """Returns what a measurement is published with."""
    from cdc_keras.runs import environment

    return environment.environment()


def lines_of(row, result):
    """Returns the comparisons of a row as dicts of what, ours, peer, ratio, bar and whether it is met."""
    rates = result["rates"]
    medians = {side: statistics.median(values) for side, values in rates.items()}
    if "gated" in rates:
        time_ratio = _median_ratio(rates["plain"], rates["gated"])
        ratio = time_ratio / result["multiply_adds"]
        what = (
            f"images/s beside the same network plain; step time {time_ratio:.2f}x, multiply-adds "
            f"{result['multiply_adds']:.2f}x, the one over the other"
        )
        return [_line(row, what, medians["gated"], medians["plain"], ratio, row.bar, at_most=True)]
    ready = "ours on a ready batch"
    waiting = 1 - _median_ratio(rates["ours"], rates[ready])
    peak = result["peak_mib"]
    return [
        _line(row, "images/s", medians["ours"], medians["peer"], _median_ratio(rates["ours"], rates["peer"]), row.bar),
        _line(row, "share of the step spent on input", waiting, None, None, INPUT_BAR, at_most=True),
        _line(row, "peak memory, MiB", *peak.values(), peak["ours"] / peak["peer"], MEMORY_BAR, at_most=True),
    ]


def _median_ratio(ours, theirs):
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _line(row, what, ours, peer, ratio, bar, at_most=False):
    value = ours if ratio is None else ratio
    met = value <= bar if at_most else value >= bar
    return {
        "row": row.title,
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": ratio,
        "bar": bar,
        "at_most": at_most,
        "met": met,
    }


def table(lines):
    """Returns the comparisons as a Markdown table."""
    rows = []
    for line in lines:
        share = line["ratio"] is None
        bar = f"{line['bar']:.0%}" if share else f"{line['bar']:.1f}"
        cells = (
            line["row"],
            line["what"],
            f"{line['ours']:.1%}" if share else f"{line['ours']:,.0f}",
            "" if share else f"{line['peer']:,.0f}",
            "" if share else f"{line['ratio']:.2f}",
            f"{'at most' if line['at_most'] else 'at least'} {bar}",
            "yes" if line["met"] else "NO",
        )
        rows.append(cells)
    return markdown_table(("training", "measured", "ours", "peer", "ratio", "bar", "met"), rows)


def versions():
    """Returns {package: version} of what was measured."""
    packages = ("tensorflow", "keras", "torch")
    return {name: importlib.metadata.version(name) for name in packages if importlib.util.find_spec(name)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="what to measure; all by default")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of each side, at least 1")
    parser.add_argument("--steps", type=int, help="timed steps of a round; by default each row's own")
    parser.add_argument("--images", type=int, default=50_000, help="examples in the split")
    parser.add_argument("--steps_per_call", type=int, default=1, help="our steps in one compiled call")
    parser.add_argument("--quick", action="store_true", help="one round of two steps on few images: a smoke test")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the table and every single measurement")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.rounds, arguments.steps, arguments.images = 1, 2, 1024
    if arguments.rounds < 1 or (arguments.steps is not None and arguments.steps < 1) or arguments.steps_per_call < 1:
        parser.error("--rounds, --steps and --steps_per_call are at least 1")
    most = max((arguments.steps or ROWS[name].steps) + 2 * arguments.steps_per_call for name in arguments.rows)
    largest = max(ROWS[name].batch_size for name in arguments.rows)
    if most * largest > arguments.images:
        parser.error(f"a round takes up to {most * largest} images; give more --images or fewer --steps")
    if set(arguments.rows) - {"gate"} and importlib.util.find_spec("torch") is None:
        sys.exit("error: the peers need PyTorch, which cannot be imported; install it, or measure --rows gate alone")

    lines, results = [], {}
    for name in arguments.rows:
        row = ROWS[name]
        print(f"{row.title} ...", file=sys.stderr)
        results[name] = measure(
            row,
            rounds=arguments.rounds,
            steps=arguments.steps or row.steps,
            images=arguments.images,
            steps_per_call=arguments.steps_per_call,
        )
        lines += lines_of(row, results[name])
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"{IMAGE_SIZE} px, {CLASSES} classes, {arguments.rounds} rounds, {CORES} cores, {about}\n\n{table(lines)}")
    if arguments.out:
        about = {"rounds": arguments.rounds, "versions": versions(), "environment": elsewhere(environment)}
        record = {**about, "table": lines, "rows": results}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
