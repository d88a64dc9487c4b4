"""What docs/serving.md shows: bodies are answered as it says, files are what a server reads, and its client works."""

import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import serving
import tensorflow as tf
from commands import refusal
from exports import NAME
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.config import model_server_config_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs/serving.md").read_text()
ROUNDED = 1e-4  # four digits are shown


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.S)


@pytest.fixture(scope="module")
def model(exported):
    return tf.saved_model.load(str(exported))


@pytest.mark.slow
def test_its_other_commands_run(exported_as_onnx, tmp_path):
    first, mine, _, _, in_8_bits = re.findall(r"cdc-keras export (.*)", DOCUMENT)
    assert re.findall(r"cdc-keras export (.*)", (ROOT / "README.md").read_text()) == [first]
    assert refusal("export", *mine.split()).startswith("runs/resnet20_gated is no run folder")
    assert (exported_as_onnx[0] / "serving_default.onnx").is_file()
    elsewhere = in_8_bits.replace("$HOME/tensorflow_datasets", str(tmp_path))  # where there are no images
    assert "cifar100 is not prepared in" in refusal("export", *elsewhere.split())


def test_the_rest_bodies_are_request_and_response(model):
    request, response = blocks("json")
    (answer,) = json.loads(serving.rest(model, request))["predictions"]
    (shown,) = json.loads(response)["predictions"]
    assert answer["top_labels"] == shown["top_labels"] and answer.keys() == shown.keys()
    for output in ("probabilities", "top_scores"):
        np.testing.assert_allclose(answer[output], shown[output], atol=ROUNDED)


def test_the_protos_are_request_and_response(model):
    request, response = blocks("textproto")
    answer = serving.predict(model, text_format.Parse(request, predict_pb2.PredictRequest()))
    shown = text_format.Parse(response, predict_pb2.PredictResponse())
    assert answer.model_spec == shown.model_spec and answer.outputs.keys() == shown.outputs.keys()
    labels, scores = (
        [tf.make_ndarray(x.outputs[key]) for x in (answer, shown)] for key in ("top_labels", "top_scores")
    )
    assert np.array_equal(*labels)
    np.testing.assert_allclose(*scores, atol=ROUNDED)


def test_the_files_it_lists_are_those_of_a_model(exported):
    (tree,) = re.findall(r"```\n(models/.*?)```", DOCUMENT, flags=re.S)
    assert tree.startswith(f"models/{NAME}/1/\n")
    named = [path for line in tree.splitlines()[1:] for path in re.match(r"  ((?:\S+ ?)+)", line)[1].split()]
    assert {path.rstrip("/") for path in named if (exported / path).exists()} == {path.rstrip("/") for path in named}
    files = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert {file for file in files if not file.startswith("variables/")} - set(named) == {"fingerprint.pb"}


def test_the_servers_configuration_is_one():
    text = (ROOT / "examples/serving/models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    assert [(x.name, x.base_path) for x in config.model_config_list.config] == [(NAME, f"/models/{NAME}")]
    for file in re.findall(r"_file=/models/([\w.]+)", DOCUMENT):
        assert (ROOT / "examples/serving" / file).is_file()


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving's REST interface does."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 404, json.dumps({"error": f"no model at {self.path}"})
        if self.path == f"/v1/models/{NAME}:predict":
            try:
                status, answer = 200, serving.rest(self.server.model, body)
            except tf.errors.InvalidArgumentError as error:
                status, answer = 400, json.dumps({"error": error.message})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(model):
    with http.server.HTTPServer(("localhost", 0), StandIn) as server:
        server.model = model
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def client(*arguments):
    command = [sys.executable, "-I", ROOT / "examples/classify_folder.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_client_prints_a_table_and_a_bad_file_costs_no_other(server, model, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xffno picture")
    (tmp_path / "._0.png").write_bytes(b"what macOS adds")
    (tmp_path / "closed.jpg").write_bytes(b"x")
    (tmp_path / "closed.jpg").chmod(0)
    closed = not os.access(tmp_path / "closed.jpg", os.R_OK)  # root may read all
    done = client(tmp_path, f"--server={server}", "--batch=2")
    assert done.returncode == 1 and "error: 3 of 8 images were left out" in done.stderr
    first, *lines, bad, last = done.stdout.splitlines()[1:]
    assert re.match(r"\._0.png +refused: .*no JPEG and no PNG", first) and re.match(r"bad.jpg +refused: ", bad)
    assert re.match(r"closed.jpg +" + ("cannot be read: Permission denied" if closed else "refused: "), last)
    answer = model.signatures["serve_bytes"](image_bytes=tf.constant([(tmp_path / "0.png").read_bytes()]))
    assert answer["top_labels"].numpy()[0, 0].decode() in lines[0] and f"{answer['top_scores'][0, 0]:.1%}" in lines[0]
    for name in ("bad.jpg", "._0.png", "closed.jpg"):
        (tmp_path / name).unlink()
    assert client(tmp_path, f"--server={server}").returncode == 0
    done = client(tmp_path, f"--server={server}", "--model=other")
    assert done.returncode == 1 and "answers 404: " in done.stderr and "no model at" in done.stderr


def test_the_client_says_what_is_wrong(tmp_path):
    assert "there is no folder" in client(tmp_path / "nowhere").stderr
    assert "holds no file" in client(tmp_path).stderr
    assert "--batch is at least 1" in client(tmp_path, "--batch=0").stderr
    shutil.copy(ROOT / "docs/demo_attention.png", tmp_path / "image.png")
    done = client(tmp_path, "--server=http://localhost:9")
    assert done.returncode == 1 and "start TensorFlow Serving" in done.stderr
