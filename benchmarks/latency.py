"""What we export beside the runtimes that a user would pick, on the same network and cores: latency of a request.

    python -m benchmarks.latency --out latency.json

Ours are the three formats of `cdc-keras export`, each with its signature serving_default: the SavedModel, called from
Python, LiteRT, and ONNX in ONNX Runtime. The peers are OpenVINO, which reads the same ONNX file, and PyTorch, eager and
compiled, on the network of `torch_peers.py` with preprocessing, softmax and the five best as ours. A gated network has
no peer in PyTorch. Each runs in a process of its own, and they take turns, one round each. A round has a median (p50)
and a 99th percentile (p99) of its requests; ratios are medians of the rounds' ratios of p50.

PyTorch and OpenVINO are not among the requirements; `make bench` installs them.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import statistics
import tempfile
import time

from benchmarks import training_step  # which sets the backend
from cdc_keras.markdown import markdown_table

RECORDS = ("cifar100_resnet20", "cifar100_resnet20_gated")
BATCHES = {1: 200, 8: 60, 64: 20}  # images in a request: requests in a round
BAR = 1.05
OURS = {"saved_model": "SavedModel", "litert": "LiteRT", "onnx": "ONNX Runtime"}
SIDES = {**OURS, "openvino": "OpenVINO", "torch": "PyTorch", "compiled": "PyTorch, compiled"}
CORES = len(os.sched_getaffinity(0))


class Server:
    """Answers requests of one size; called, it returns [p50, p99], the seconds of some.

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
        return [statistics.median(seconds), sorted(seconds)[-1 - len(seconds) // 100]]


class SavedModel(Server):
    def __init__(self, folder, batch, image_size):
        import tensorflow as tf

        super().__init__(batch, image_size)
        self.model = tf.saved_model.load(folder)
        function = self.model.signatures["serving_default"]
        self.answer = lambda: function(images=tf.constant(self.images))["probabilities"].numpy()


class LiteRT(Server):
    def __init__(self, folder, batch, image_size):
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(batch, image_size)
        run = Interpreter(str(pathlib.Path(folder, "model.tflite")), num_threads=CORES).get_signature_runner(
            "serving_default"
        )
        self.answer = lambda: run(images=self.images)


class Onnx(Server):
    def __init__(self, folder, batch, image_size):
        import onnxruntime

        super().__init__(batch, image_size)
        session = onnxruntime.InferenceSession(pathlib.Path(folder, "serving_default.onnx"))
        self.answer = lambda: session.run(None, {"images": self.images})


class OpenVino(Server):
    def __init__(self, folder, batch, image_size):
        import openvino

        super().__init__(batch, image_size)
        core = openvino.Core()
        model = core.read_model(pathlib.Path(folder, "serving_default.onnx"))
        model.reshape([batch, image_size, image_size, 3])  # as fast as it can be, for this size alone
        request = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        self.answer = lambda: request.infer({"images": self.images})


class Torch(Server):
    def __init__(self, network, classes, compiled, batch, image_size):
        import torch

        from benchmarks import torch_peers

        super().__init__(batch, image_size)
        model = torch_peers.network(network, classes).eval().to(memory_format=torch.channels_last)

        def answer(images):
            images = images.permute(0, 3, 1, 2).float() / 127.5 - 1  # channels last, as the pixels come
            probabilities = torch.softmax(model(images), dim=1)
            return probabilities, *torch.topk(probabilities, 5)

        answer = torch.compile(answer) if compiled else answer

        def numbers():
            with torch.inference_mode():
                return [x.numpy() for x in answer(torch.from_numpy(self.images))]

        self.answer = numbers


def exported(name, folder):
    """Returns {format: path of a record as it is exported}, and its network if it has no gate, its size and classes."""
    from cdc_keras import zoo
    from cdc_keras.choices import EXPORT_FORMATS
    from cdc_keras.export.export import export

    record = zoo.info(name)
    config = record.run_config()
    paths = {
        format: str(export(f"zoo:{name}", pathlib.Path(folder, name, format), format=format).folder)
        for format in EXPORT_FORMATS
    }
    return paths, None if config.gated else config.network, config.image_size, len(record.class_names)


def measure(name, *, rounds, requests=None):
    """Returns {batch: {side: [[p50, p99] of every round]}}, seconds, of a record of the zoo."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths, network, size, classes = training_step.elsewhere(exported, name, folder)
        readers = {"saved_model": SavedModel, "litert": LiteRT, "onnx": Onnx, "openvino": OpenVino}
        for batch, usual in BATCHES.items():
            made = {
                side: (kind, (paths["onnx" if side == "openvino" else side], batch, size), {})
                for side, kind in readers.items()
            }
            if network is not None:
                for side in ("torch", "compiled"):
                    made[side] = (Torch, (network, classes, side == "compiled", batch, size), {})
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
    """Returns the table of {record: {batch: {side: [[p50, p99]]}}}, seconds, as Markdown."""
    head = ["record", "images in a request", *(f"{x}, ms" for x in SIDES.values()), "our best over the fastest", "met"]
    rows = []
    for name, batches in measured.items():
        for batch, times in batches.items():
            typical = {side: [p50 for p50, _ in of_rounds] for side, of_rounds in times.items()}
            shown = [_cell(times[side]) if side in times else "" for side in SIDES]
            fastest, best = (
                [min(x) for x in zip(*(typical[side] for side in sides if side in typical), strict=True)]
                for sides in (SIDES, OURS)
            )
            ratio = statistics.median(ours / peer for ours, peer in zip(best, fastest, strict=True))
            rows.append((name, batch, *shown, f"{ratio:.2f}", "yes" if ratio <= BAR else "NO"))
    return markdown_table(head, rows)


def _cell(of_rounds):
    p50, p99 = (1e3 * statistics.median(values) for values in zip(*of_rounds, strict=True))
    return f"{p50:.2f} ({p99:.2f})"


def versions():
    """Returns {package: version} of the peers."""
    return {name: importlib.metadata.version(name) for name in ("ai-edge-litert", "onnxruntime", "openvino", "torch")}


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
