"""Keras settings of another project, in keras.json, in variables or set by the caller; locales; a home that is none."""

import contextlib
import csv
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_runs import EXTRACTOR

import cdc_keras
from cdc_keras import zoo
from cdc_keras.release.golden import differences
from cdc_keras.runs.evaluation import measure
from cdc_keras.runs.training import train

CLASSES = ("猫", "a$b$c", 'x\n<{\\,"q"')
REMOVED = ("HOME", "KERAS_HOME", "KERAS_BACKEND", "LC_ALL", "TF_ENABLE_ONEDNN_OPTS")
FOREIGN = {"backend": "torch", "floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.5}


@contextlib.contextmanager
def foreign(floatx):
    """The context of settings that another project has made in this process."""
    config = keras.config
    before = config.floatx(), config.image_data_format(), config.epsilon()

    def make(floatx, data_format, epsilon):
        config.set_floatx(floatx)
        config.set_image_data_format(data_format)
        config.set_epsilon(epsilon)

    make(floatx, "channels_first", 0.1)
    try:
        yield
        assert (config.floatx(), config.image_data_format(), config.epsilon()) == (floatx, "channels_first", 0.1)
    finally:
        make(*before)


def run(*arguments, cwd=None, home=None, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in REMOVED}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables | ({} if home is None else {"HOME": str(home)})
    return subprocess.run([sys.executable, *arguments], capture_output=True, cwd=cwd, env=environment)


CONVOLUTION = "import cdc_keras, keras; keras.ops.conv(keras.ops.ones((1, 8, 8, 16)), keras.ops.ones((3, 3, 16, 16)))"


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is for x86 here")
def test_tensorflow_computes_by_onednn_unless_the_environment_says_otherwise():
    for said, by_onednn in ({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False):
        done = run("-c", CONVOLUTION, ONEDNN_VERBOSE="1", **said)
        assert done.returncode == 0, done.stderr
        assert (b"exec,cpu,convolution" in done.stdout) == by_onednn


def write_settings(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "keras.json").write_text(json.dumps(FOREIGN | settings))
    return str(folder)


@pytest.mark.parametrize("floatx", ["float16", "float64"])
@pytest.mark.parametrize("name", ["shapes", "cifar100_resnet20_gated"])
def test_a_released_network_is_the_same_under_any_settings(name, floatx):
    pixels = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3) % 256
    with foreign(floatx):
        network = zoo.load(name)
        assert {variable.dtype for variable in network.variables} <= {"float32", "int64", "uint32"}
        assert not differences(network, zoo.info(name))
        images = cdc_keras.preprocess_input(pixels)
        tensor = cdc_keras.preprocess_input(keras.ops.convert_to_tensor(pixels, "int32"))
    assert images.dtype == tensor.dtype == np.float32
    np.testing.assert_allclose(images, tensor, atol=1e-6)


@pytest.mark.slow
def test_training_and_scoring_give_the_same_numbers_under_any_settings(tmp_path):
    config = dataclasses.replace(EXTRACTOR, train_limit=32)
    rows, scores = [], []
    for name, settings in (("ours", contextlib.nullcontext()), ("theirs", foreign("float64"))):
        with settings:
            rows.append(train(config, tmp_path / name, pictures=False).rows()[-1])
            scores.append(measure(tmp_path / name, split="validation").scores["reconstruction_loss"])
    timed = ("seconds", "images_per_second")
    assert rows[0].keys() == rows[1].keys()
    assert all(rows[0][key] == pytest.approx(rows[1][key], rel=1e-3, abs=1e-6) for key in rows[0] if key not in timed)
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "variables", "words"),
    [
        ({"backend": "torhc"}, {}, ["torhc", "keras.json", "KERAS_BACKEND"]),
        ({"floatx": "float8"}, {}, ["floatx", "float8", "keras.json"]),
        ({}, {"KERAS_BACKEND": "tensorflwo"}, ["tensorflwo", "KERAS_BACKEND"]),
    ],
)
def test_settings_with_which_keras_does_not_start_are_one_sentence(settings, variables, words, tmp_path):
    place = write_settings(tmp_path, **settings)
    done = run("-c", "import cdc_keras; cdc_keras.load", KERAS_HOME=place, **variables)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("cdc_keras.errors.UserError: Keras does not start: ") and all(x in last for x in words)


@pytest.mark.parametrize("backend", ["tensorflwo", "numpy"])
def test_a_command_refuses_a_backend_that_is_none_of_its_own(backend):
    done = run("-m", "cdc_keras", "complexity", KERAS_BACKEND=backend)
    error = done.stderr.decode()
    assert done.returncode == 1 and error.startswith("error: Keras ") and error.count("\n") == 1
    assert backend in error and "KERAS_BACKEND to tensorflow or jax" in error and "null" not in error


def test_a_command_reads_no_keras_json_and_needs_no_home(tmp_path):
    place = write_settings(tmp_path / ".keras")
    before = json.loads((tmp_path / ".keras" / "keras.json").read_text())
    for variables in ({"home": tmp_path}, {"home": "/proc/nowhere", "KERAS_HOME": place}):
        done = run("-m", "cdc_keras", "complexity", "--model=zoo:cifar100_resnet20", cwd=tmp_path, **variables)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert "| " in done.stdout.decode()
    assert json.loads((tmp_path / ".keras" / "keras.json").read_text()) == before


@pytest.mark.slow
def test_names_of_any_letters_are_trained_on_and_written_in_any_locale(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(len(CLASSES), 10, 32, 32, 3)).astype("uint8")
    for name, images in zip(CLASSES, pixels, strict=True):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number}.png")
    ascii_only = {"cwd": tmp_path, "LC_ALL": "C", "PYTHONUTF8": "0"}
    flags = ["--dataset=folder", "--data_dir=data", "--image_size=32", "--epochs=1", "--batch_size=8"]
    flags += ["--task=classifier", "--network=resnet8", "--warmup_epochs=0", "--learning_rate_drops=0.5"]
    for arguments in (["train", *flags, "--run_dir=run"], ["evaluate", "--model=run", "--out=scores"]):
        done = run("-m", "cdc_keras", *arguments, **ascii_only)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "scores" / "confusion-test-last.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["true \\ predicted", *sorted(CLASSES)]
    assert [row[0] for row in rows] == sorted(CLASSES) and all(len(row) == len(head) for row in rows)
    assert re.search(r"\\u732b", done.stdout.decode("ascii"))  # a terminal without the letter
    notes = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert notes["data"]["classes"] == sorted(CLASSES)
