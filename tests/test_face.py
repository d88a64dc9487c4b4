"""The package's face: what a Keras user types first, and that nothing heavy is loaded before it is used."""

import ast
import doctest
import inspect
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import cdc_keras
from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.networks import autoencoder, registry

ROOT = pathlib.Path(cdc_keras.__file__).parent
FACE = ("attach", "decode_predictions", "load", "preprocess_input", "usable_sites")
RNG = np.random.default_rng(0)


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_importing_the_package_and_its_zoo_loads_neither_keras_nor_numpy():
    heavy = "{'keras', 'tensorflow', 'numpy', 'jax'}"
    code = f"import sys, cdc_keras, cdc_keras.zoo; print(sorted({heavy} & set(sys.modules)))"
    assert run(code) == "[]\n"


def test_it_lists_what_it_has_and_has_what_it_lists():
    names = {*FACE, "zoo", "__version__"}
    assert set(dir(cdc_keras)) == names == set(cdc_keras.__all__)
    assert all(callable(getattr(cdc_keras, name)) for name in FACE)
    assert set(dir(zoo)) == {"info", "load", "names"} and all(callable(getattr(zoo, name)) for name in dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'lod'; it has .*load"):
        cdc_keras.lod  # noqa: B018


@pytest.mark.parametrize("function", [*(getattr(cdc_keras, name) for name in FACE), zoo.load, zoo.names, zoo.info])
def test_every_function_of_the_face_has_an_example_that_runs(function):
    examples = doctest.DocTestFinder(recurse=False).find(
        function, function.__name__, globs={function.__name__: function}
    )
    assert [len(example.examples) > 0 for example in examples] == [True]
    results = doctest.DocTestRunner().run(examples[0])
    assert (results.failed, results.attempted) == (0, len(examples[0].examples))


def test_every_function_of_the_face_has_type_hints():
    for function in (*(getattr(cdc_keras, name) for name in FACE), zoo.load, zoo.names, zoo.info):
        signature = inspect.signature(function)
        assert signature.return_annotation is not signature.empty, function
        assert all(p.annotation is not p.empty for p in signature.parameters.values()), function


def test_the_stub_has_the_names_and_arguments_of_the_face():
    assert (ROOT / "py.typed").is_file()
    stub = (ROOT / "__init__.pyi").read_text()
    assert all(re.search(rf"\b(def|as) {name}\b", stub) for name in (*FACE, "zoo"))
    body = re.search(r"def attach\((.*?)\) ->", stub, flags=re.S)[1]
    arguments = re.findall(r"^ *(\w+):.*?(?: = (.*))?,$", body, flags=re.M)
    expected = inspect.signature(cdc_keras.attach).parameters.values()
    assert [name for name, _ in arguments] == [p.name for p in expected]
    defaults = [default.strip('"') for _, default in arguments]
    assert defaults == ["" if p.default is p.empty else str(p.default) for p in expected]


@pytest.fixture(scope="module")
def gated_file(tmp_path_factory):
    gated = cdc_keras.attach(registry.build("resnet8", 32, num_classes=4), autoencoder.encoder(32))
    path = tmp_path_factory.mktemp("face") / "gated.keras"
    gated.save(path)
    return path


@pytest.mark.parametrize(
    "imports",
    [
        "import cdc_keras, keras",
        "import keras, cdc_keras",
        "import cdc_keras.devices.distribution, keras",  # half-way itself when networks/layers.py needs it
    ],
)
def test_a_gated_model_is_opened_by_keras_whichever_was_imported_first(imports, gated_file):
    code = f"{imports}\nimport sys\nprint(keras.models.load_model(sys.argv[1]).output_shape)"
    assert run(code, gated_file) == "(None, 4)\n"


def test_the_module_with_our_layers_imports_modules_of_ours_and_no_names_from_them():
    """Keras' import starts its import, whichever module of ours is half-way itself then."""
    statements = ast.walk(ast.parse((ROOT / "networks" / "layers.py").read_text()))
    ours = [x for x in statements if isinstance(x, ast.ImportFrom) and x.module.startswith("cdc_keras")]
    assert ours and all(
        (ROOT.parent / x.module.replace(".", "/") / f"{y.name}.py").is_file() for x in ours for y in x.names
    )


def test_training_is_called_as_a_module(tmp_path):
    command = [
        sys.executable,
        "-m",
        "cdc_keras",
        "train",
        "--task=classifier",
        "--dataset=shapes",
        f"--run_dir={tmp_path}",
    ]
    command += ["--network=resnet8", "--extractor=nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: nowhere is no run folder"), done.stderr[-2000:]


def test_attach_and_usable_sites_take_the_place_of_an_extractor():
    plain = registry.build("resnet8", 32, num_classes=4)
    sites = [site.name for site in cdc_keras.usable_sites(plain, "zoo:shapes")]
    gated = cdc_keras.attach(plain, "zoo:shapes", sites[:2])
    ours, released = gated.get_layer("extractor").get_weights(), zoo.load("shapes").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(ours, released, strict=True)) and len(ours) == len(released)
    with pytest.raises(UserError, match="cifar100_resnet20 is a record of kind classifier; give one of kind extractor"):
        cdc_keras.attach(plain, "zoo:cifar100_resnet20")


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int64"])
def test_pixels_become_the_range_of_the_networks(kind):
    pixels = np.arange(192).reshape(1, 8, 8, 3).astype(kind)
    images = cdc_keras.preprocess_input(pixels)
    assert images.dtype == "float32" and images.shape == pixels.shape
    np.testing.assert_allclose(images, pixels.astype("float64") / 127.5 - 1, atol=1e-7)
    np.testing.assert_array_equal(cdc_keras.preprocess_input(pixels[0]), images[0])


def test_a_tensor_of_pixels_becomes_a_tensor():
    pixels = RNG.integers(256, size=(2, 8, 8, 3)).astype("uint8")
    images = cdc_keras.preprocess_input(keras.ops.convert_to_tensor(pixels))
    assert keras.ops.is_tensor(images)
    np.testing.assert_allclose(images, cdc_keras.preprocess_input(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4)), r"are \(B, S, S, 3\), or one is \(S, S, 3\), and these are \(4, 4\)"),
        (np.zeros((2, 4, 4, 1)), r"these are \(2, 4, 4, 1\)"),
        (np.full((4, 4, 3), -1.0), "pixels are numbers from 0 to 255"),
        (np.full((4, 4, 3), 256), "pixels are numbers from 0 to 255"),
        (np.full((4, 4, 3), np.nan), "pixels are numbers from 0 to 255"),
        (np.full((4, 4, 3), "x"), "pixels are numbers from 0 to 255"),
    ],
)
def test_what_are_no_pixels_is_told(images, message):
    with pytest.raises(ValueError, match=message):
        cdc_keras.preprocess_input(images)


def test_predictions_are_the_softmax_of_the_logits_likeliest_first():
    logits = RNG.normal(size=(3, 7))
    names = [f"class {k}" for k in range(7)]
    decoded = cdc_keras.decode_predictions(logits, names)
    assert [len(row) for row in decoded] == [5, 5, 5]
    for row, values in zip(decoded, logits, strict=True):
        probabilities = {f"class {k}": np.exp(v) / np.exp(values).sum() for k, v in enumerate(values)}
        expected = sorted(probabilities.items(), key=lambda pair: -pair[1])[:5]
        assert [name for name, _ in row] == [name for name, _ in expected]
        np.testing.assert_allclose([p for _, p in row], [p for _, p in expected], rtol=1e-12)


def test_a_classifiers_record_knows_the_names_of_its_categories():
    classifier = zoo.load("cifar100_resnet20")
    pixels = RNG.integers(256, size=(2, 32, 32, 3)).astype("uint8")
    logits = classifier(cdc_keras.preprocess_input(pixels))
    best = cdc_keras.decode_predictions(logits, "zoo:cifar100_resnet20", top=1)
    names = zoo.info("cifar100_resnet20").class_names
    assert [row[0][0] for row in best] == [names[k] for k in np.argmax(logits, axis=1)]


@pytest.mark.parametrize(
    ("predictions", "names", "top", "message"),
    [
        ([0.0, 1.0], ["a", "b"], 5, r"predictions for 2 categories are logits \(B, 2\), not \(2,\)"),
        ([[0.0, 1.0, 2.0]], ["a", "b"], 5, r"not \(1, 3\)"),
        ([[0.0, np.nan]], ["a", "b"], 5, "finite"),
        ([[0.0, 1.0]], ["a", "b"], 0, "top is at least 1, not 0"),
        ([[0.0, 1.0]], "zoo:shapes", 5, "zoo:shapes is a record of kind extractor"),
    ],
)
def test_predictions_that_cannot_be_decoded_are_told(predictions, names, top, message):
    with pytest.raises(ValueError if "kind" not in message else UserError, match=message):
        cdc_keras.decode_predictions(predictions, names, top)
