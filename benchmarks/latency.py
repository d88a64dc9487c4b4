"""What `cdc-keras export` writes, beside what else would serve the same network: the latency of a request.

    python -m benchmarks.latency --out latency.json

Ours are the three formats: the SavedModel, called from Python by its signature serving_default, with all cores in each
operation as TensorFlow starts, and with one thread; the ONNX file in ONNX Runtime; and the LiteRT file in LiteRT. The
peers are OpenVINO, which reads our ONNX file, and the same network in PyTorch, compiled, channels last, with
preprocessing, softmax and the five best as ours. A gated network has no peer in PyTorch. All compute in float32;
OpenVINO also in bfloat16, which it takes by itself where the processor has instructions for it, and which is no peer.
Each runs in a process of its own on all cores, and they take turns, one round each. Latencies of a round are the median
and the 99th percentile of its requests. Ratios are medians of the rounds' ratios.

PyTorch and OpenVINO are not among the requirements; `make bench` installs them.
"""

import argparse
import importlib.metadata
import json
import pathlib
import statistics
import tempfile
import time

from benchmarks import training_step  # which sets the backend
from benchmarks.turns import elsewhere, environment, processes
from cdc_keras.markdown import markdown_table

RECORDS = ("cifar100_resnet20", "cifar100_resnet20_gated")
BATCHES = {1: 200, 8: 50, 64: 10}  # images in a request: requests in a round
BAR = 1.05
ONNX = "serving_default.onnx"
OURS = {
    "saved_model": "SavedModel",
    "one_thread": "SavedModel, one thread an operation",
    "onnx": "ONNX file, ONNX Runtime",
    "litert": "LiteRT file, LiteRT",
}
PEERS = {"openvino": "OpenVINO", "torch": "PyTorch, compiled"}
BFLOAT16 = {"openvino_bf16": "OpenVINO, bfloat16"}


class Server:
    """Answers requests of one size; called, it returns the median and the 99th percentile of the seconds of some.

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
        return statistics.median(seconds), statistics.quantiles(seconds, n=100, method="inclusive")[-1]


class SavedModel(Server):
    def __init__(self, folder, batch, image_size, threads=None):
        import tensorflow as tf

        super().__init__(batch, image_size)
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.model = tf.saved_model.load(folder)
        function = self.model.signatures["serving_default"]
        self.answer = lambda: function(images=tf.constant(self.images))["probabilities"].numpy()


class Onnx(Server):
    def __init__(self, folder, batch, image_size):
        import onnxruntime

        super().__init__(batch, image_size)
        session = onnxruntime.InferenceSession(pathlib.Path(folder, ONNX))
        self.answer = lambda: session.run(None, {"images": self.images})


class LiteRT(Server):
    def __init__(self, folder, batch, image_size):
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(batch, image_size)
        interpreter = Interpreter(str(pathlib.Path(folder, "model.tflite")), num_threads=training_step.CORES)
        function = interpreter.get_signature_runner("serving_default")
        self.answer = lambda: function(images=self.images)


class OpenVINO(Server):
    def __init__(self, folder, batch, image_size, precision):
        import openvino

        super().__init__(batch, image_size)
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        model = openvino.Core().compile_model(str(pathlib.Path(folder, ONNX)), "CPU", hints)
        self.answer = lambda: model([self.images])


class Torch(Server):
    def __init__(self, network, classes, batch, image_size):
        import torch

        from benchmarks import torch_peers

        super().__init__(batch, image_size)
        model = torch_peers.network(network, classes).eval().to(memory_format=torch.channels_last)

        @torch.compile
        def served(images):
            probabilities = torch.softmax(model(images.permute(0, 3, 1, 2).float() / 127.5 - 1), dim=1)
            return probabilities, torch.topk(probabilities, 5)

        def answer():
            with torch.inference_mode():
                return served(torch.from_numpy(self.images))[0].numpy()

        self.answer = answer


def exported(name, folder):
    """Returns {format: path} of what a record exports, and its config's network, size and number of classes."""
    from cdc_keras import zoo
    from cdc_keras.export.export import export

    record = zoo.info(name)
    config = record.run_config()
    paths = {
        format: str(export(f"zoo:{name}", pathlib.Path(folder, name, format), format=format).folder)
        for format in ("saved_model", "onnx", "litert")
    }
    return paths, None if config.gated else config.network, config.image_size, len(record.class_names)


def measure(name, *, rounds, requests=None):
    """Returns {batch: {side: [(median, 99th percentile) of every round, seconds]}} of a record of the zoo."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        paths, network, size, classes = elsewhere(exported, name, folder)
        for batch, usual in BATCHES.items():
            made = {
                "saved_model": (SavedModel, (paths["saved_model"], batch, size), {}),
                "one_thread": (SavedModel, (paths["saved_model"], batch, size), {"threads": 1}),
                "onnx": (Onnx, (paths["onnx"], batch, size), {}),
                "litert": (LiteRT, (paths["litert"], batch, size), {}),
                "openvino": (OpenVINO, (paths["onnx"], batch, size, "f32"), {}),
                "openvino_bf16": (OpenVINO, (paths["onnx"], batch, size, "bf16"), {}),
            }
            if network is not None:
                made["torch"] = (Torch, (network, classes, batch, size), {})
            times = {side: [] for side in made}
            with processes(f"{name}, {batch}", made) as asks:
                for number in range(rounds + 1):
                    for side in made:
                        seconds = asks[side](requests=requests or usual)
                        if number:  # the first warms up
                            times[side].append(seconds)
            found[batch] = times
    return found


def table(measured):
    """Returns the table of what `measure` returned for each record, {record: ...}, as Markdown."""
    sides = OURS | PEERS | BFLOAT16
    head = ["record", "images", *(f"{title}, ms" for title in sides.values()), "our best over the best peer", "met"]
    rows = []
    for name, batches in measured.items():
        for batch, times in batches.items():
            ratio = statistics.median(
                ours / peer for ours, peer in zip(_best(times, OURS), _best(times, PEERS), strict=True)
            )
            shown = [_shown(times[side]) if side in times else "" for side in sides]
            rows.append((name, batch, *shown, f"{ratio:.2f}", "yes" if ratio <= BAR else "NO"))
    return markdown_table(head, rows)


def _best(times, sides):
    """Returns the lowest median among some sides, of every round."""
    rounds = zip(*(times[side] for side in sides if side in times), strict=True)
    return [min(p50 for p50, _ in of_round) for of_round in rounds]


def _shown(rounds):
    """Returns the medians over the rounds of both latencies as text, in milliseconds."""
    p50, p99 = (1e3 * statistics.median(values) for values in zip(*rounds, strict=True))
    return f"{p50:.2f} ({p99:.2f})"


def versions():
    """Returns {package: version} of the peers."""
    return {
        name: importlib.metadata.version(name)
        for name in ("ai-edge-litert", "onnxruntime", "openvino", "tf2onnx", "torch")
    }


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
        about["environment"] = elsewhere(environment)
        arguments.out.write_text(json.dumps({**about, "seconds": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
