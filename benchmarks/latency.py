"""The exported model beside ONNX Runtime and PyTorch on the same network and cores: latency of a request.

    python -m benchmarks.latency --out latency.json

Ours is the SavedModel that `cdc-keras export` writes, its signature serving_default called from Python. ONNX
Runtime runs what the same command writes with --format=onnx, PyTorch the peer of `torch_peers.py`, with preprocessing,
softmax and the five best as ours. A gated network has no peer in PyTorch. Each runs in a process of its own, and they
take turns, one round each; a round's latency is the median of its requests, ratios are medians of the rounds' ratios.

PyTorch is not among the requirements; `make bench` installs it.
"""

import argparse
import importlib.metadata
import json
import pathlib
import statistics
import tempfile
import time

from benchmarks import training_step  # which sets the backend
from cdc_keras.markdown import markdown_table

RECORDS = ("cifar100_resnet20", "cifar100_resnet20_gated")
BATCHES = {1: 100, 64: 10}  # images in a request: requests in a round
BAR = 1.0
SIDES = {"ours": "SavedModel", "onnx": "ONNX Runtime", "torch": "PyTorch"}


class Server:
    """Answers requests of one size; called, it returns the median seconds of some.

    Args:
        batch: images in a request.
        image_size: pixels.
    """

    def __init__(self, batch, image_size):
        import numpy as np

        self.images = np.random.default_rng(0).integers(0, 256, (batch, image_size, image_size, 3), dtype=np.uint8)

    def __call__(self, requests):
        seconds = []
        for _ in range(requests):
            started = time.perf_counter()
            self.answer()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)


class Ours(Server):
    def __init__(self, folder, batch, image_size):
        import tensorflow as tf

        super().__init__(batch, image_size)
        self.model = tf.saved_model.load(folder)
        function = self.model.signatures["serving_default"]
        self.answer = lambda: function(images=tf.constant(self.images))["probabilities"].numpy()


class Onnx(Server):
    def __init__(self, folder, batch, image_size):
        import onnxruntime

        super().__init__(batch, image_size)
        session = onnxruntime.InferenceSession(pathlib.Path(folder, "serving_default.onnx"))
        self.answer = lambda: session.run(None, {"images": self.images})


class Torch(Server):
    def __init__(self, network, classes, batch, image_size):
        import torch

        from benchmarks import torch_peers

        super().__init__(batch, image_size)
        model = torch_peers.network(network, classes).eval()

        def answer():
            with torch.inference_mode():
                images = torch.from_numpy(self.images).permute(0, 3, 1, 2).float() / 127.5 - 1
                probabilities = torch.softmax(model(images), dim=1)
                return probabilities.numpy(), torch.topk(probabilities, 5)

        self.answer = answer


def exported(name, folder):
    """Returns the paths of a record's SavedModel and ONNX files, and its config's network, size and classes."""
    from cdc_keras import zoo
    from cdc_keras.export.export import export

    record = zoo.info(name)
    config = record.run_config()
    paths = [
        str(export(f"zoo:{name}", pathlib.Path(folder, name, format), format=format).folder)
        for format in ("saved_model", "onnx")
    ]
    return *paths, None if config.gated else config.network, config.image_size, len(record.class_names)


def measure(name, *, rounds, requests=None):
    """Returns {batch: {side: [seconds of every round]}} of a record of the zoo."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        saved_model, onnx, network, size, classes = training_step.elsewhere(exported, name, folder)
        for batch, usual in BATCHES.items():
            made = {"ours": (Ours, (saved_model, batch, size), {}), "onnx": (Onnx, (onnx, batch, size), {})}
            if network is not None:
                made["torch"] = (Torch, (network, classes, batch, size), {})
            times = {side: [] for side in made}
            with training_step.processes(f"{name}, {batch}", made) as asks:
                for number in range(rounds + 1):
                    for side in made:
                        seconds = asks[side](requests=requests or usual)
                        if number:  # the first warms up
                            times[side].append(seconds)
            found[batch] = times
    return found


def table(measured):
    """Returns the table of {record: {batch: {side: [seconds]}}} as Markdown."""
    head = ["record", "images in a request", *(f"{x}, ms" for x in SIDES.values()), "ours over the better", "met"]
    rows = []
    for name, batches in measured.items():
        for batch, times in batches.items():
            shown = [f"{1e3 * statistics.median(times[x]):.2f}" if x in times else "" for x in SIDES]
            better = [min(peers) for peers in zip(*(times[x] for x in times if x != "ours"), strict=True)]
            ratio = statistics.median(ours / peer for ours, peer in zip(times["ours"], better, strict=True))
            met = "yes" if ratio <= BAR else "NO"
            rows.append((name, batch, *shown, f"{ratio:.2f}", met))
    return markdown_table(head, rows)


def versions():
    """Returns {package: version} of the peers."""
    return {name: importlib.metadata.version(name) for name in ("onnxruntime", "tf2onnx", "torch")}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", nargs="+", default=RECORDS, help="classifiers of the zoo")
    parser.add_argument("--rounds", type=int, default=11, help="measured rounds of each side")
    parser.add_argument("--requests", type=int, help="requests of a round; by default each size's own")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for every single measurement")
    arguments = parser.parse_args(argv)
    found = {name: measure(name, rounds=arguments.rounds, requests=arguments.requests) for name in arguments.records}
    print(table(found))
    if arguments.out:
        about = {"rounds": arguments.rounds, "versions": versions()}
        about["environment"] = training_step.elsewhere(training_step.environment)
        arguments.out.write_text(json.dumps({**about, "seconds": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
