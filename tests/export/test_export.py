"""The exported model: it answers as the Keras model does where there is nothing but TensorFlow, and bears bad input."""

import io
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pytest
import serving
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from commands import refusal
from exports import EXTRACTOR, NAME
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2
from tiny_runs import CLASSIFIER

from cdc_keras import zoo
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import scale
from cdc_keras.errors import UserError
from cdc_keras.export import folding, litert, saved_model
from cdc_keras.export.export import METADATA, export
from cdc_keras.networks import autoencoder, graph
from cdc_keras.networks.preresnet import wide_resnet
from cdc_keras.networks.resnet import cifar_resnet
from cdc_keras.networks.vgg import vgg
from cdc_keras.runs.training import train
from cdc_keras.visualize.maps import focus_map
from cdc_keras.weights import sha256

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITES = ("stage2_block3_add", "stage3_block3_add")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (128, 32, 32, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def picture(height, width, mode="RGB"):
    """A picture without much detail, as photographs are."""
    shape = (height // 4 + 1, width // 4 + 1, len(mode)) if len(mode) > 1 else (height // 4 + 1, width // 4 + 1)
    small = Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


@pytest.fixture(scope="module")
def expected():
    """What the Keras model gives for IMAGES, by output."""
    model = zoo.load(NAME)
    weights = {f"channel_weights_{site}": f"gate_{site}_compatibility" for site in SITES}
    names = {"context": "extractor", "attention": "gate_attention", "out": f"gate_{SITES[-1]}_out", **weights}
    inside = graph.activations(model, list(names.values()))(scale(IMAGES), training=False)
    found = {output: np.asarray(inside[layer]) for output, layer in names.items()}
    probabilities = np.asarray(keras.ops.softmax(model(scale(IMAGES), training=False)))
    best = np.argsort(-probabilities, axis=1)[:, :5]
    found |= {"probabilities": probabilities, "top_scores": np.take_along_axis(probabilities, best, axis=1)}
    found["top_labels"] = np.array(zoo.info(NAME).class_names)[best]
    found["focus"] = np.asarray(focus_map(keras.ops.relu(found.pop("out")), 32))
    found["attention"] = found["attention"][..., 0]
    return found | {output: found[output][:, 0, 0] for output in weights}


@pytest.mark.slow
def test_tensorflow_alone_answers_as_the_keras_model_does_and_survives_hostile_bytes(exported, expected, tmp_path):
    inputs = {
        f"{name} images {n}": IMAGES[:n] for name in ("serving_default", "explain", "context") for n in (1, 7, 128)
    }
    pngs = np.array([encoded(image) for image in IMAGES])
    inputs |= {f"serve_bytes image_bytes {n}": pngs[:n] for n in (1, 7, 128)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    command = [sys.executable, "-I", ROOT / "tests/serving.py", exported, tmp_path / "inputs.npz", tmp_path / "out.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "out.npz") as answers:
        answers = dict(answers)
    assert answers.pop("refused") == 2_009  # the images that only cost much are answered
    assert answers.pop("grown") < 500_000  # kB
    seen = set()
    for name, answer in answers.items():
        signature, _, n, output = name.split(" ")
        reference = expected[output][: int(n)]
        if output == "top_labels":
            assert np.array_equal(answer.astype(str), reference), name
        else:
            np.testing.assert_allclose(answer, reference, atol=1e-5, err_msg=name)
        seen.add((signature, output))
    answer = {"probabilities", "top_labels", "top_scores"}
    explained = answer | {"focus", "attention", *(f"channel_weights_{site}" for site in SITES)}
    wanted = {"serving_default": answer, "serve_bytes": answer, "explain": explained, "context": {"context"}}
    assert seen == {(name, output) for name, outputs in wanted.items() for output in outputs}


def test_an_extractor_answers_with_its_context(exported_extractor):
    model = tf.saved_model.load(str(exported_extractor))
    expected = zoo.load(EXTRACTOR)(scale(IMAGES[:3]), training=False)
    for name in ("serving_default", "context"):
        np.testing.assert_allclose(
            model.signatures[name](images=tf.constant(IMAGES[:3]))["context"], expected, atol=1e-5
        )
    pngs = tf.constant([encoded(image) for image in IMAGES[:3]])
    np.testing.assert_allclose(model.signatures["serve_bytes"](image_bytes=pngs)["context"], expected, atol=1e-5)
    assert set(model.signatures) == {"serving_default", "serve_bytes", "context"}


@pytest.mark.parametrize(
    "build, left",
    [
        (lambda: cifar_resnet(8, num_classes=10), 0),
        (lambda: vgg(13, num_classes=10, width=8), 0),
        (lambda: wide_resnet(10, 1, num_classes=10), 4),  # batch norms that come before their convolutions
        (lambda: autoencoder.encoder(32), 0),
    ],
)
def test_folded_batch_norms_change_nothing_but_the_number_of_layers(build, left):
    network = build()
    for variable in network.variables:  # no batch norm is as it was made, none divides by next to nothing
        low = 0.5 if "variance" in variable.path or "gamma" in variable.path else -0.5
        variable.assign(RNG.uniform(low, low + 1, variable.shape) * (0.1 if "kernel" in variable.path else 1))
    images, model = scale(IMAGES[:3]), folding.folded(network)
    np.testing.assert_allclose(model(images, training=False), network(images, training=False), rtol=1e-4, atol=1e-4)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == left and len(model.layers) < len(network.layers)
    before = [variable.numpy() for variable in network.variables]
    assert all(np.array_equal(x, y.numpy()) for x, y in zip(before, network.variables, strict=True))


def test_a_convolution_that_something_else_takes_too_keeps_its_batch_norm():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(x)
    normed = keras.layers.BatchNormalization()(x)
    network = keras.Model(inputs, keras.layers.Add()([x, normed]))
    network.layers[2].set_weights([RNG.uniform(0.5, 1.5, 4) for _ in range(4)])
    images = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    model = folding.folded(network)
    assert len(model.layers) == len(network.layers)
    np.testing.assert_allclose(model(images), network(images), atol=1e-6)


@pytest.mark.slow
def test_onnx_runtime_answers_as_the_keras_model_does(exported_as_onnx, expected):
    folder, said = exported_as_onnx
    assert "serve_bytes: not converted, as ONNX has no operator that decodes JPEG" in said
    numbers = {label: i for i, label in enumerate(zoo.info(NAME).class_names)}
    assert (folder / "classes.txt").read_text().splitlines() == list(numbers)
    found = expected | {"top_classes": np.vectorize(numbers.get)(expected["top_labels"])}
    for name in ("serving_default", "explain", "context"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        outputs = [output.name for output in session.get_outputs()]
        assert set(outputs) == set(json.loads((folder / METADATA).read_text())["signatures"][name]["outputs"])
        for n in (1, 7, 128):
            for output, answer in zip(outputs, session.run(None, {"images": IMAGES[:n]}), strict=True):
                np.testing.assert_allclose(answer, found[output][:n], atol=1e-4, err_msg=f"{name} {output}")


@pytest.mark.slow
def test_litert_answers_as_the_keras_model_does(exported_as_litert, expected):
    folder, said = exported_as_litert
    assert "serve_bytes: not converted, as LiteRT has no operator that decodes JPEG" in said
    numbers = {label: i for i, label in enumerate(zoo.info(NAME).class_names)}
    assert (folder / "classes.txt").read_text().splitlines() == list(numbers)
    found = expected | {"top_classes": np.vectorize(numbers.get)(expected["top_labels"])}
    signatures = json.loads((folder / METADATA).read_text())["signatures"]
    assert set(signatures) == {"serving_default", "explain", "context"}
    interpreter = Interpreter(str(folder / litert.MODEL))
    for name in signatures:
        run = interpreter.get_signature_runner(name)
        for n in (1, 7, 128):
            answer = run(images=IMAGES[:n])
            assert set(answer) == set(signatures[name]["outputs"])
            for output, values in answer.items():
                np.testing.assert_allclose(values, found[output][:n], atol=1e-4, err_msg=f"{name} {output}")


@pytest.mark.slow
def test_litert_in_8_bits_answers_nearly_as_in_32_from_a_smaller_file(tmp_path):
    run, answers, sizes = train(CLASSIFIER, tmp_path / "run"), {}, {}
    test = load_dataset(run.config()).test
    for format in ("litert", "litert_int8"):  # noqa: A001
        file = export(run.path, tmp_path / format, format=format).folder / litert.MODEL
        sizes[format] = file.stat().st_size
        signature = Interpreter(str(file)).get_signature_runner("serving_default")
        answers[format] = signature(images=test.images)["probabilities"]
    exact, rounded = answers.values()
    assert 0.2 < sizes["litert_int8"] / sizes["litert"] < 0.5
    assert 0 < abs(exact - rounded).mean() < 0.01
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("format, title", [("onnx", "ONNX"), ("litert", "LiteRT")])
def test_noise_which_a_format_cannot_draw_is_refused(format, title, tmp_path):  # noqa: A002
    with pytest.raises(UserError, match=f"{title} has no operator for a part of this network, .*RandomNormal"):
        export("zoo:shapes", tmp_path / "model", format=format)
    assert not any((tmp_path / "model").iterdir())


@pytest.mark.parametrize(
    "image, sentence",
    [
        (b"", "no JPEG and no PNG"),
        (encoded(IMAGES[0], "GIF"), "no JPEG and no PNG"),
        (b"\x89PNG\r\n\x1a\n12345", "this PNG has no picture, or ends early"),
        (serving.png_that_says(20_000, 20_000), r"at most 16777216 pixels; .*\[20000\] \[20000\]"),
        (encoded(IMAGES[0])[:500], "this PNG has no picture, or ends early"),
        (encoded(picture(64, 64), "JPEG")[:800], "this JPEG has no picture, or ends early"),
    ],
)
def test_one_bad_image_fails_its_whole_request_and_says_why(loaded, image, sentence):
    serve = loaded.signatures["serve_bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        serve(image_bytes=tf.constant([encoded(IMAGES[0]), image]))
    assert serve(image_bytes=tf.constant([encoded(IMAGES[0])]))["probabilities"].shape == (1, 100)


def test_an_empty_batch_and_one_of_another_shape_or_type_are_refused(loaded):
    for name, function in loaded.signatures.items():
        empty = tf.zeros((0,), tf.string) if name == "serve_bytes" else tf.zeros((0, 32, 32, 3), tf.uint8)
        (spec,) = function.structured_input_signature[1].values()
        with pytest.raises(tf.errors.InvalidArgumentError, match="send at least one image"):
            function(**{spec.name: empty})
        other = (
            [b"", [[b""]]] if name == "serve_bytes" else [IMAGES[0], IMAGES[:1, :31], IMAGES[:1, ..., :2], IMAGES[None]]
        )
        for wrong in other:
            with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected shape"):
                function(**{spec.name: tf.constant(wrong)})
    for wrong in (np.full((1, 32, 32, 3), np.nan, np.float32), IMAGES[:1].astype(np.int32)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="expected to be a uint8 tensor"):
            loaded.signatures["serving_default"](images=tf.constant(wrong))


def test_the_warm_up_asks_every_signature_once(exported, loaded):
    records = list(tf.data.TFRecordDataset(str(exported / "assets.extra/tf_serving_warmup_requests")))
    requests = [prediction_log_pb2.PredictionLog.FromString(x.numpy()).predict_log.request for x in records]
    assert {request.model_spec.signature_name for request in requests} == set(loaded.signatures)
    for request in requests:
        assert request.model_spec.name == NAME
        assert all(tf.make_ndarray(x).shape[0] == 1 for x in serving.predict(loaded, request).outputs.values())


def test_a_model_does_not_say_where_it_was_made(exported):
    for file in ("saved_model.pb", METADATA):
        assert str(exported.parents[1]).encode() not in (exported / file).read_bytes()


def test_metadata_and_assets_say_what_it_is(exported):
    about = json.loads((exported / METADATA).read_text())
    assert about["record_sha256"] == sha256(ROOT / "zoo" / NAME / "preset.json")
    assert about["weights_sha256"] == zoo.info(NAME).weights.sha256
    assert (about["model"], about["kind"], about["classes"]) == (f"zoo:{NAME}", "classifier", 100)
    assert (exported / "assets/classes.txt").read_text().split("\n")[:-1] == list(zoo.info(NAME).class_names)
    assert about["signatures"]["serve_bytes"]["inputs"] == {"image_bytes": "string (None,)"}


@pytest.mark.long
def test_saved_model_cli_shows_and_runs_every_signature(exported, loaded, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES[:2])
    np.save(tmp_path / "image_bytes.npy", np.array([encoded(image) for image in IMAGES[:2]]))
    command = pathlib.Path(sys.executable).with_name("saved_model_cli")
    started = [[command, "show", "--dir", exported, "--all"]]
    for name, function in loaded.signatures.items():
        (spec,) = function.structured_input_signature[1].values()
        arguments = ["--inputs", f"{spec.name}={tmp_path / spec.name}.npy", "--outdir", tmp_path / name]
        started.append([command, "run", "--dir", exported, "--tag_set", "serve", "--signature_def", name, *arguments])
    running = [subprocess.Popen(x, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for x in started]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * 5
    for name, function in loaded.signatures.items():
        assert f"signature_def['{name}']" in printed[0]
        for output in function.structured_outputs:
            assert f"outputs['{output}']" in printed[0]
            assert len(np.load(tmp_path / name / f"{output}.npy", allow_pickle=output == "top_labels")) == 2


def test_versions_follow_each_other_and_none_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "write", lambda *arguments: {})  # what is in them is tested above
    out = tmp_path / "model"
    assert [export("zoo:cifar100", out).folder.name for _ in range(2)] == ["1", "2"]
    with pytest.raises(UserError, match="2 exists; a version is not written again"):
        export("zoo:cifar100", out, version=2)
    assert export("zoo:cifar100", out, version=7).folder.name == "7"
    assert export("zoo:cifar100", out).folder.name == "8"
    assert sorted(path.name for path in out.iterdir()) == ["1", "2", "7", "8"]
    with pytest.raises(UserError, match="version is a whole number above 0, not 0"):
        export("zoo:cifar100", out, version=0)
    with pytest.raises(UserError, match="format is one of saved_model, onnx, litert, litert_int8, not 'onyx'"):
        export("zoo:cifar100", out, format="onyx")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "give --model and --out; for example: cdc-keras export"),
        (["--model=zoo:cifar100"], "give --out"),
        (["--model=nowhere", "--out=OUT"], "nowhere is no run folder"),
        (["--model=zoo:cifar10000", "--out=OUT"], "there is no record 'cifar10000'"),
        (["--model=zoo:cifar100", "--out=FILE"], "cannot write a model to"),
        (
            ["--model=zoo:cifar100", "--out=OUT", "--format=tflite"],
            "--format is one of saved_model, onnx, litert, litert_int8, not 'tflite'",
        ),
    ],
)
def test_bad_input_is_answered_with_one_sentence(arguments, sentence, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    places = {"OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "file")}
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal("export", *arguments)
    assert not list(tmp_path.glob("out/*"))
