# %% [markdown]
# # Export, serve, and explain a prediction
#
# **One command turns a trained classifier into a folder that a server answers from, and the same folder can say where
# the classifier looked.** This tutorial trains a small classifier, exports it, asks it over HTTP, and draws the maps
# behind its answers. It takes one to three minutes on two CPU cores.
#
# * An *extractor* is a trained network that turns an image x into its context T, a feature map that should describe
#   everything about x but its category.
# * Its decoder G paints x again from T and a category. The map V measures how much that picture changes with the
#   category, so V is large where the object is.
# * A *gate* inside the classifier reads T and V. It computes an attention map M, one number for each position, and
#   channel weights C, one number for each channel. It multiplies the features of the classifier by both.

# %%
import base64
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.request

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less
os.environ["no_proxy"] = "127.0.0.1"  # our server is on this machine, where no proxy leads

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import cdc_keras
from cdc_keras.audit.scenes import overlaps
from cdc_keras.data.shapes import shapes

work = pathlib.Path(tempfile.mkdtemp())


def cdc(*arguments):
    """Runs a command of cdc-keras and returns what it prints. If it fails, what went wrong is shown."""
    done = subprocess.run([sys.executable, "-m", "cdc_keras", *arguments], capture_output=True, text=True)
    print(done.stderr if done.returncode else "", end="")
    done.check_returncode()
    return done.stdout


# %% [markdown]
# ## A classifier to serve
#
# We have no photograph here, only images that the program draws: ten shapes on textured backgrounds. So we train a
# classifier of those. Its gate sees V and starts from it. The extractor has seen the images of seed 0, so ours is 1.

# %%
cdc(
    *("train", "--task=classifier", "--dataset=shapes", "--network=vgg13_slim", "--seed=1", "--train_limit=1000"),
    *("--extractor=zoo:shapes", "--gate_spread=true", "--gate_init=spread", f"--run_dir={work / 'run'}"),
    *("--epochs=2", "--batch_size=16", "--learning_rate=0.02", "--warmup_epochs=0", "--validation_fraction=0"),
)
classifier = cdc_keras.load(work / "run")

scenes = shapes(200, seed=2024)  # new ones
logits = classifier.predict(cdc_keras.preprocess_input(scenes.images), verbose=0)
print(f"The classifier is right on {np.mean(logits.argmax(-1) == scenes.labels):.0%} of new images; chance is 10%.")

# %% [markdown]
# A training of seconds makes a poor classifier, and it will do. To serve a released model of photographs instead, give
# `--model=zoo:cifar100_resnet20_gated` to the next command.
#
# ## Export
#
# The command writes a SavedModel, the form in which TensorFlow keeps a program. It contains all there is between the
# pixels and the answer: preprocessing, extractor, gate and classifier. So neither Keras nor this library is needed to
# run it. The server knows the model by the name of the folder. Each export adds a version: 1, 2, and so on.

# %%
NAME = "shapes_gated"
print(cdc("export", f"--model={work / 'run'}", f"--out={work / NAME}"))

# %% [markdown]
# A *signature* is one way to ask the model. `serving_default` takes pixels, and `serve_bytes` the bytes of JPEG or PNG
# files of any size. `explain` also gives M, C and a map of focus, and `context` gives T and V.
#
# ## Ask it within Python
#
# TensorFlow loads the folder and calls a signature like a function. Pixels and PNG bytes must both give the
# probabilities that the Keras model gives. Only rounding differs, as the export joins some layers into one.

# %%
served = tf.saved_model.load(str(work / NAME / "1"))
files = [tf.io.encode_png(pixels).numpy() for pixels in scenes.images]  # as you would read from .png files
answers = {
    "pixels": served.signatures["serving_default"](images=tf.constant(scenes.images)),
    "PNG bytes": served.signatures["serve_bytes"](image_bytes=tf.constant(files)),
}
for given, answer in answers.items():
    difference = np.abs(answer["probabilities"] - tf.nn.softmax(logits)).max()
    print(f"from {given}: the largest difference of a probability is {difference:.0e}")
    assert difference < 1e-3

# %% [markdown]
# ## Ask it without TensorFlow
#
# `--format=litert` writes one small file with the same signatures, without `serve_bytes`. LiteRT, formerly TensorFlow
# Lite, runs it in phones, in browsers, and here in Python. Its answers are numbers of categories instead of labels.

# %%
cdc("export", f"--model={work / 'run'}", f"--out={work / 'litert'}", "--format=litert")
model = work / "litert" / "1" / "model.tflite"
run = Interpreter(str(model)).get_signature_runner("serving_default")
answer = run(images=scenes.images)
difference = np.abs(answer["probabilities"] - tf.nn.softmax(logits)).max()
print(f"{model.stat().st_size / 1e6:.1f} MB; the largest difference of a probability is {difference:.0e}")
assert difference < 1e-3

# %% [markdown]
# ## Ask it over HTTP
#
# TensorFlow Serving is a server of its own and cannot run inside a notebook. Where it is installed, one command serves
# the folder, named by its absolute path. `docs/serving.md` has the same with Docker.
#
# ```sh
# tensorflow_model_server --rest_api_port=8501 --model_name=shapes_gated --model_base_path=/path/to/shapes_gated
# ```
#
# **The class below only stands in for that server**, so that this page has somebody to ask. It understands the one kind
# of request that we send, and no mistakes. Do not serve anything by it.


# %%
class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers POST /v1/models/<name>:predict from the SavedModel, in the form in which TensorFlow Serving answers."""

    def do_POST(self):
        assert self.path == f"/v1/models/{NAME}:predict"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sent = [base64.b64decode(instance["image_bytes"]["b64"]) for instance in request["instances"]]
        answer = served.signatures[request["signature_name"]](image_bytes=tf.constant(sent))
        columns = {name: values.numpy().tolist() for name, values in answer.items()}
        columns["top_labels"] = [[label.decode() for label in row] for row in columns["top_labels"]]
        predictions = [{name: rows[i] for name, rows in columns.items()} for i in range(len(sent))]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"predictions": predictions}).encode())

    def log_message(self, *arguments):
        """Says nothing about requests."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn)  # 0: any free port
threading.Thread(target=server.serve_forever, daemon=True).start()

# %% [markdown]
# The client is the one for the real server, but for the address. JSON cannot hold bytes, so they are sent in base64,
# under the key `b64`. The client needs neither TensorFlow nor this library.

# %%
address = f"http://127.0.0.1:{server.server_port}"  # that of TensorFlow Serving is http://localhost:8501


def ask(files):
    """Returns the predictions of image files, given as their bytes."""
    instances = [{"image_bytes": {"b64": base64.b64encode(file).decode()}} for file in files]
    body = json.dumps({"signature_name": "serve_bytes", "instances": instances}).encode()
    request = urllib.request.Request(f"{address}/v1/models/{NAME}:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["predictions"]


for number, answer in enumerate(ask(files[:3])):
    best = zip(answer["top_labels"], answer["top_scores"], strict=True)
    print(f"image {number}: " + ", ".join(f"{label} {score:.0%}" for label, score in best))
server.shutdown()

# %% [markdown]
# ## Explain a prediction
#
# `explain` gives what the gate computed for these very images. Where M is small, the gate turned the features down. The
# focus shows where the last features are strong. For each map we print how much it overlaps with the shape (IoU: 1 is
# the shape itself). The same number for the map of *another* image is the control.

# %%
images = tf.constant(scenes.images)
answer = {**served.signatures["explain"](images=images), **served.signatures["context"](images=images)}
maps = {"V": answer["spread"][..., 0].numpy(), "M": answer["attention"].numpy(), "focus": answer["focus"].numpy()}

figure, axes = plt.subplots(4, 6, figsize=(9, 6.4), layout="constrained")
for i, column in enumerate(axes.T):
    for ax, name in zip(column, ("", *maps), strict=True):
        ax.imshow(scenes.images[i])
        if name:
            ax.imshow(maps[name][i], cmap="turbo", alpha=0.6, extent=(-0.5, 31.5, 31.5, -0.5), vmin=0)
        ax.set_title(name or f"{answer['top_labels'][i, 0].numpy().decode()} {answer['top_scores'][i, 0]:.0%}")
        ax.set_axis_off()
plt.show()

for name, values in maps.items():
    own, another = overlaps(values, scenes.factors["mask"])
    print(f"{name}: overlap with the shape {own.mean():.2f}, of another image's {name} {another.mean():.2f}")

# %% [markdown]
# V and M lie on the shapes, for M started from V. The classifier is often wrong all the same: **a map that looks right
# does not make the answer right.** It says what the gate let through, and not what the classifier made of it.
#
# C has one number for each channel of a gated layer, and 1 leaves a channel as it is. After so short a training, C has
# hardly left 1. In longer runs it moves more. `docs/does_it_pay.md` says what that is worth.

# %%
ax = plt.figure(figsize=(6, 2.8), layout="constrained").subplots()
for name, weights in answer.items():
    if name.startswith("channel_weights_"):
        ax.plot(np.sort(weights[0])[::-1], ".", label=name.removeprefix("channel_weights_"))
ax.set(xlabel="channels, sorted", ylabel="C of the first image", ylim=(0.95, 1.05))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# `docs/serving.md` has the rest: several models, batching, gRPC, and what a server refuses. Know one thing before you
# send many images at once: one bad file fails its whole request.
