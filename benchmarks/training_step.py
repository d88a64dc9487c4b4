"""Our training steps beside the same in PyTorch on the same cores: images/s, time spent on input, memory.

    python -m benchmarks.training_step --out training_step.json

Ours is what `cdc-keras train` does: the model of `trainers.build`, `model.fit`, and the input path of `data.pipeline`.
The peers are `torch_peers.py` in five ways: as PyTorch starts; channels last with a fused optimizer; compiled besides;
and the last two in bfloat16. All have the whole split in memory and as many threads as there are cores. Each runs in a
process of its own, and they take turns, one round each, so that whatever else the machine does meets all; rates are
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
import os
import pathlib
import statistics
import sys
import time

from benchmarks.turns import elsewhere, environment, median_ratio, peak_mib, processes
from cdc_keras.markdown import markdown_table

# Before Keras is imported, by the functions below; under TensorFlow a batch is a step, and the input path is tf.data.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SPEED_BAR, GATE_BAR, INPUT_BAR, MEMORY_BAR = 1.05, 1.05, 0.02, 1.0
CORES = os.cpu_count()
MATRIX = 2048  # rows and columns of the product that stands for the processor's peak


@dataclasses.dataclass(frozen=True)
class Row:
    """One training to measure.

    Attributes:
        title: for people.
        network: name of a classifier; None is the extractor.
        batch_size: images a step.
        steps: timed steps of a round.
        classes: number of categories.
        image_size: height and width, pixels.
    """

    title: str
    network: str | None
    batch_size: int
    steps: int
    classes: int = 100
    image_size: int = 32


ROWS = {
    "resnet20": Row("ResNet-20", "resnet20", 128, 20),
    "wrn16_4": Row("WRN-16-4", "wrn16_4", 128, 3),
    "vgg13": Row("VGG-13", "vgg13", 128, 5),
    "vgg13_slim": Row("VGG-13 slim", "vgg13_slim", 128, 30),
    "gate": Row("VGG-13 slim, gated", "vgg13_slim", 128, 30),
    "extractor32": Row("extractor, batch 32", None, 32, 40),
    "extractor64": Row("extractor, batch 64", None, 64, 30),
}


def data(row, images):
    """Returns (images, labels) for a row: noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(images, row.image_size, row.image_size, 3), dtype=np.uint8)
    return pixels, rng.integers(row.classes, size=images).astype(np.int32)


class Ours:
    """The training of `cdc-keras train`, by rounds."""

    def __init__(self, row, images, steps_per_call, gated=False, **config):
        import tensorflow as tf

        from cdc_keras.devices import distribution, precision

        self.row, self.steps_per_call = row, steps_per_call
        self.config = config_of(row, gated, steps_per_call=steps_per_call, **config)
        precision.share_cores(self.config)
        self.scope = contextlib.ExitStack()
        self.scope.enter_context(distribution.scope(self.config.strategy))
        self.model = model_of(row, self.config, images // row.batch_size)
        from cdc_keras.data.dataset import Split

        self.split = Split(*data(row, images))
        batch = next(iter(self.batches(0)))
        self.constant = tf.data.Dataset.from_tensors(batch).repeat()

    def batches(self, epoch):
        from cdc_keras.data.pipeline import training_batches

        return training_batches(
            self.split,
            self.row.image_size,
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

    def __init__(self, row, images, steps_per_call, **way):
        del steps_per_call
        import torch

        from benchmarks import torch_peers

        torch.set_num_threads(CORES)
        torch.manual_seed(0)
        self.row, self.padding = row, 0 if row.network is None else row.image_size // 8
        way = torch_peers.Way(**way)
        if row.network is None:
            self.step = torch_peers.ExtractorStep(row.classes, way=way)
        else:
            self.step = torch_peers.ClassifierStep(torch_peers.network(row.network, row.classes), 0.001, way)
        pixels, labels = data(row, images)
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
    return RunConfig(batch_size=row.batch_size, **config).resolved(row.image_size)


def model_of(row, config, steps_per_epoch):
    """Returns the model that `cdc-keras train` would train, the context of a gate from an untrained extractor."""
    from cdc_keras.networks import autoencoder
    from cdc_keras.trainers.build import build

    extractor = autoencoder.encoder(row.image_size) if config.gated else None
    return build(config, row.classes, steps_per_epoch, extractor=extractor)


def multiply_adds(row):
    """Returns the multiply-adds of a training step of a row, for one image.

    A network that learns takes three times those of its forward pass; where no gradient is taken, one; where the
    gradient only passes, as through D in the auto-encoder's step, two.
    """
    from cdc_keras import complexity
    from cdc_keras.networks.layers import FrozenExtractor

    model = model_of(row, config_of(row, row == ROWS["gate"]), 1000)
    if row.network is None:
        encoder, decoder, discriminator = (
            complexity.macs(network) for network in (model.encoder, model.decoder, model.discriminator)
        )
        return (1 + 3) * encoder + 2 * 3 * decoder + (3 + 2) * discriminator
    network = model.network
    extractor = sum(complexity.macs(x.network) for x in network.layers if isinstance(x, FrozenExtractor))
    return 3 * (complexity.macs(network, products=True) - extractor) + extractor


def product_rate(dtype):
    """Returns how many multiply-adds a second a product of two large matrices reaches here."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    a = tf.cast(tf.random.normal((MATRIX, MATRIX)), dtype)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        tf.matmul(a, a).numpy()
        seconds.append(time.perf_counter() - started)
    return MATRIX**3 / min(seconds)


def imported(library):
    """Returns the memory that a process has taken once it has imported a library, MiB."""
    importlib.import_module(library)
    return peak_mib()


OURS = {"ours": (Ours, {}), "ours, bfloat16": (Ours, {"precision": "mixed_bfloat16"})}
FLOAT32 = {
    "PyTorch": (Peer, {}),
    "channels last": (Peer, {"channels_last": True}),
    "compiled": (Peer, {"channels_last": True, "compiled": True}),
}
BFLOAT16 = {
    "channels last, bfloat16": (Peer, {"channels_last": True, "bfloat16": True}),
    "compiled, bfloat16": (Peer, {"channels_last": True, "compiled": True, "bfloat16": True}),
}
SIDES = OURS | FLOAT32 | BFLOAT16
GATE_SIDES = {"gated": (Ours, {"gated": True}), "plain": (Ours, {})}
READY = "ours on a ready batch"


def measure(row, *, rounds, steps, images, steps_per_call):
    """Returns what a row gives: {"rates": {side: [images/s of every round]}, "peak_mib": {side: MiB}, ...}.

    Args:
        row: a `Row`.
        rounds: measured rounds of every side; one more warms up.
        steps: timed steps of a round.
        images: examples in the split.
        steps_per_call: our steps in one compiled call.
    """
    gate = row == ROWS["gate"]
    sides = GATE_SIDES if gate else SIDES
    turns = [(side, side, {}) for side in sides] + [(READY, "ours", {"constant": True})] * (not gate)
    rates = {name: [] for name, _, _ in turns}
    made = {side: (make, (row, images, steps_per_call), keywords) for side, (make, keywords) in sides.items()}
    with processes(row.title, made) as asks:
        for number in range(rounds + 1):
            for name, side, more in turns if number % 2 else turns[::-1]:
                rate = asks[side](number=number, steps=steps if number else min(steps, 2), **more)
                if number:
                    rates[name].append(rate)
        result = {"rates": rates, "peak_mib": {side: asks[side]() for side in sides}}
    result["multiply_adds"] = elsewhere(multiply_adds, row)
    return result


def fastest(rates, sides):
    """Returns the side with the highest median of its images/s."""
    return max(sides, key=lambda side: statistics.median(rates[side]))


def speed_table(measured):
    """Returns the images/s of every row and side as a Markdown table, with our ratio to the fastest peer."""
    made = []
    for name, result in measured["rows"].items():
        if name == "gate":
            continue
        rates = result["rates"]
        cells = [ROWS[name].title]
        for ours, peers in (("ours", FLOAT32), ("ours, bfloat16", BFLOAT16)):
            ratio = median_ratio(rates[ours], rates[fastest(rates, peers)])
            cells += [f"{statistics.median(rates[side]):,.0f}" for side in (ours, *peers)]
            cells.append(f"{ratio:.2f}{'' if ratio >= SPEED_BAR else ' (missed)'}")
        made.append(cells)
    beside = "ours over the fastest"
    return markdown_table(("training", "ours", *FLOAT32, beside, "ours, bfloat16", *BFLOAT16, beside), made)


def costs_table(measured):
    """Returns what a step costs besides, as a Markdown table: of the processor's peak, of input, of memory.

    Args:
        measured: {"rows": {name: what `measure` gives}, "product": {dtype: multiply-adds/s}, "imported_mib": {library:
            MiB}}.
    """
    made = []
    for name, result in measured["rows"].items():
        if name == "gate":
            continue
        rates, peak = result["rates"], result["peak_mib"]
        shares = [
            statistics.median(rates[side]) * result["multiply_adds"] / measured["product"][dtype]
            for side, dtype in (("ours", "float32"), ("ours, bfloat16", "bfloat16"))
        ]
        waiting = 1 - median_ratio(rates["ours"], rates[READY])
        ours = peak["ours"] - measured["imported_mib"]["tensorflow"]
        theirs = min(peak[side] for side in FLOAT32) - measured["imported_mib"]["torch"]
        ratio = ours / theirs
        made.append(
            (
                ROWS[name].title,
                *(f"{share:.0%}" for share in shares),
                f"{waiting:.1%}{'' if waiting <= INPUT_BAR else ' (missed)'}",
                f"{ours:,.0f}",
                f"{theirs:,.0f}",
                f"{ratio:.2f}{'' if ratio <= MEMORY_BAR else ' (missed)'}",
            )
        )
    return markdown_table(
        ("training", "of the peak", "of the peak, bfloat16", "input", "memory, MiB", "PyTorch, MiB", "ratio"), made
    )


def gate_table(measured):
    """Returns the row of the gate as a Markdown table: what it adds in time beside what it adds in multiply-adds."""
    rows = measured["rows"]
    rates = rows["gate"]["rates"]
    time_ratio = median_ratio(rates["plain"], rates["gated"])
    products = rows["gate"]["multiply_adds"] / rows["vgg13_slim"]["multiply_adds"]
    ratio = time_ratio / products
    cells = [f"{statistics.median(rates[side]):,.0f}" for side in ("plain", "gated")]
    cells += [f"{time_ratio:.2f}", f"{products:.2f}", f"{ratio:.2f}{'' if ratio <= GATE_BAR else ' (missed)'}"]
    heads = ("plain, images/s", "gated, images/s", "time of a step", "multiply-adds", "the one over the other")
    return markdown_table(heads, [cells])


def tables(measured):
    """Returns every table that the measured rows can fill."""
    rows, made = set(measured["rows"]), []
    if rows - {"gate"}:
        made += [speed_table(measured), costs_table(measured)]
    if {"gate", "vgg13_slim"} <= rows:
        made.append(gate_table(measured))
    return "\n\n".join(made)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="what to measure; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each side, at least 1")
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
    peers = set(arguments.rows) - {"gate"}
    if peers and importlib.util.find_spec("torch") is None:
        sys.exit("error: the peers need PyTorch, which cannot be imported; install it, or measure --rows gate alone")

    measured = {"rows": {}}
    if peers:
        measured["product"] = {dtype: elsewhere(product_rate, dtype) for dtype in ("float32", "bfloat16")}
        measured["imported_mib"] = {library: elsewhere(imported, library) for library in ("tensorflow", "torch")}
    for name in arguments.rows:
        print(f"{ROWS[name].title} ...", file=sys.stderr)
        measured["rows"][name] = measure(
            ROWS[name],
            rounds=arguments.rounds,
            steps=arguments.steps or ROWS[name].steps,
            images=arguments.images,
            steps_per_call=arguments.steps_per_call,
        )
    print(f"32 px, 100 classes, {arguments.rounds} rounds, {CORES} cores\n\n{tables(measured)}")
    if arguments.out:
        about = {"rounds": arguments.rounds, "environment": elsewhere(environment)}
        about["versions"] = {"torch": importlib.metadata.version("torch")} if peers else {}
        record = {**about, "measured": measured}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
