"""README and the manual: figures are those of the records, commands and examples run, links lead somewhere."""

import contextlib
import csv
import functools
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from commands import refusal, run_command
from PIL import Image
from records import untrained_probe

import cdc_keras
from benchmarks import gate_pays
from cdc_keras import cli, flags
from cdc_keras.audit import examination
from cdc_keras.commands import train as commands_train
from cdc_keras.devices import cluster, precision
from cdc_keras.runs.training import train
from cdc_keras.tables.jobs import read_flags
from cdc_keras.tables.systems import rows

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "zoo/README.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDER = "control: plain, at least as many weights as are trained with the gate"
SHORT = "--epochs=2 --train_limit=128 --batch_size=32"
SHORTER = "--epochs=1 --batch_size=2 --warmup_epochs=0.1"  # for images of 128 px


def blocks(text, language):
    return [block for name, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.S | re.M) if name == language]


def commands(text, name=None):
    """Returns [(command, [arguments])] of the lines of a text's shell blocks that begin with cdc-keras."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("cdc-keras ")]
    split = [(words[1], words[2:]) for words in split if words[2:] != ["..."]]
    return [(command, arguments) for command, arguments in split if name in (None, command)]


def section(title):
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, flags=re.S | re.M)[1]


def run(command, arguments, folder, extra=""):
    """Returns what a command printed in a folder, the data of `make_data` standing for the reader's."""
    arguments = [
        x.replace("$HOME/tensorflow_datasets", "data").replace("=configs/", f"={ROOT}/configs/") for x in arguments
    ]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        run_command(command, *arguments, *extra.split())
    return printed.getvalue()


@pytest.fixture(autouse=True)
def training_inside_the_process(monkeypatch):
    """TensorFlow's threads have started already; pictures are drawn by the commands that follow the training."""
    monkeypatch.setattr(precision, "share_cores", lambda config: None)
    monkeypatch.setattr(commands_train, "train", functools.partial(train, pictures=False))


def make_data(folder):
    """Writes what the commands of README read: CIFAR-100 as arrays, two categories of images and some photos."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    sizes = {"train": 400, "test": 200}
    arrays = {f"x_{s}": rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for s, n in sizes.items()}
    arrays |= {f"y_{s}": np.arange(n) % 100 for s, n in sizes.items()}
    np.savez(folder / "data/cifar100.npz", **arrays)
    for place, count in (("my images/cats", 10), ("my images/dogs", 10), ("photos", 2)):
        (folder / place).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (150, 140, 3), dtype=np.uint8)).save(folder / place / f"{i}.png")


def epochs(run_dir):
    with open(run_dir / "metrics.csv") as file:
        return [row for row in csv.DictReader(file)]


# Figures


def test_their_tables_are_those_of_the_records():
    subprocess.run([sys.executable, "-m", "docs.fill", "--check"], check=True, cwd=ROOT)


def cells(page, first):
    """Returns the cells of the only row of a page's tables whose first cell is `first`, and those of its head."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"| {first} |")]
    head = next(i for i in range(at, 0, -1) if not lines[i - 1].startswith("|"))
    names, values = ([cell.strip() for cell in lines[i].strip("|").split("|")] for i in (head, at))
    return dict(zip(names, values, strict=True))


def stated(pattern):
    """Returns the figure in the only place of README's findings that matches."""
    (figure,) = re.findall(pattern, " ".join(section("What we found").split()))
    return float(figure)


def percent(cell):
    return float(cell.rstrip("%"))


def test_readme_states_the_findings_of_the_audits():
    own, without = (cells("disentangling.md", f"[{name}](../zoo/{name})") for name in ("cifar100", "cifar100_cgm"))
    strongest = [max(percent(row[probe]) for probe in ("linear", "k-NN", "MLP", "conv")) for row in (own, without)]
    assert stated(r"A fresh probe reads it in ([\d.]+)%") == strongest[0]
    assert stated(r"Without the discriminator it reads ([\d.]+)%") == strongest[1]
    seen = stated(r"sees ([\d.]+)% of the images decoded under another category as their own")
    assert seen == percent(own["under y', seen as y"])
    text = (ROOT / "docs/disentangling.md").read_text()
    released = text[text.index("<!-- released_cifar100 -->") :]
    for pattern, where in (
        (r"from the pixels ([\d.]+)%", r"reads ([\d.]+)% from pixels"),
        (r"and chance is ([\d.]+)%", r"chance is ([\d.]+)%"),
        (r"Of the unchanged images it sees ([\d.]+)%", r"classifier reads ([\d.]+)% from the images"),
    ):
        assert stated(pattern) == float(re.search(where, released)[1])


def test_readme_states_the_findings_of_the_tables():
    gains = {
        r"gains ([\d.]+) points on the plain ResNet-20": "resnet20 + Ours (CDCGM)",
        r"With the T of another image it gains ([\d.]+)": "resnet20 + Ours with T of another image (control)",
        r"larger plain network gains ([\d.]+)": f"resnet26 ({WIDER})",
    }
    for pattern, row in gains.items():
        assert stated(pattern) == float(cells("tables.md", row)["gain over plain, 95% interval, p by Holm"].split()[0])


def test_no_row_of_the_tables_differs_for_sure_from_its_plain_network():
    text = (ROOT / "docs/tables.md").read_text()
    p_values = list(map(float, re.findall(r"\), p ([\d.e-]+) \|", text)))
    assert "every p-value is above 0.2" in text and len(p_values) > 20 and min(p_values) > 0.2


def test_it_is_said_how_sure_the_gain_of_the_gate_from_v_is():
    text = " ".join((ROOT / "docs/does_it_pay.md").read_text().split())
    said = re.search(
        r"all (\d+) differences of the table, (\d+) of them .* has ([\d.]+) with .* and ([\d.]+) with", text
    )
    records = json.loads((ROOT / "docs/results/gate_pays.json").read_text())
    differences, p_values = gate_pays.compared(records)
    assert (int(said[1]), int(said[2])) == (len(differences), sum(p < gate_pays.SURE for p in p_values.values()))
    for number, regime in ((3, "telltale backgrounds (0.8)"), (4, "telltale backgrounds (0.95)")):
        of = regime, "the same, T and V of another image", gate_pays.OTHERS
        assert f"{p_values[of]:.3f}" == said[number]
        assert differences[of].mean > differences[of].interval


def test_readme_states_the_findings_on_shapes():
    column = "gate from V minus this"
    for pattern, row in (
        (r"Its accuracy differs by \+([\d.]+) ± [\d.]+ points from that of the plain network", "plain"),
        (
            r"and by \+([\d.]+) ± [\d.]+ from that of the same gate with T and V of another",
            "the same, T and V of another image",
        ),
    ):
        assert stated(pattern) == float(cells("does_it_pay.md", row)[column].split()[0])
    found = cells("disentangling.md", "category, by the strongest probe")["recipe"]
    assert abs(stated(r"The strongest probe reads it in (\d+)%") - float(found.split("%")[0])) <= 0.5


# Commands


def all_commands():
    return [
        pytest.param(*command, id=f"{page.name}-{' '.join(command[1])[:60]}")
        for page in PAGES
        for command in commands(page.read_text())
    ]


@pytest.mark.parametrize("command, arguments", all_commands())
def test_its_commands_have_flags_and_settings_that_exist(command, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = flags.parse(cli.COMMANDS[command].define, arguments)
    for name in cli.COMMANDS[command].needed:
        assert values[name].value is not None, f"--{name} is missing"
    if command == "train":
        flags.config_from_flags(values)
    if command == "tables":
        for number in values.table or ():
            assert rows(number, networks=values.networks, wanted=values.rows)
        if values.classifier_flags:
            assert read_flags(ROOT / values.classifier_flags).task == "classifier"


def test_the_commands_are_those_that_the_program_has():
    named = {name for page in PAGES for name in re.findall(r"cdc-keras (\w+)", page.read_text())}
    assert named - {"command"} == set(cli.COMMANDS)


@pytest.mark.long
def test_its_commands_train_on_own_images(tmp_path):
    make_data(tmp_path)
    for command, arguments in commands(section("Train on your own images"))[:2]:
        run(command, arguments, tmp_path, SHORTER)
    runs = tmp_path / "runs"
    assert len(epochs(runs / "extractor")) == len(epochs(runs / "gated")) == 1
    assert json.loads((runs / "gated/extractor.json").read_text())["image_size"] == 128


@pytest.mark.long
def test_its_commands_train_on_cifar100_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "probe", untrained_probe)
    make_data(tmp_path)
    lines = commands(section("Train on your own images"))
    assert [name for name, _ in lines] == ["train"] * 5 + ["evaluate", "audit", "report"]
    for command, arguments in lines[2:5]:
        run(command, arguments, tmp_path, SHORT)
    runs = tmp_path / "runs"
    for name in ("cifar100_extractor", "resnet20", "resnet20_gated"):
        assert [float(row["epoch"]) for row in epochs(runs / name)] == [1, 2]

    evaluate, audit, report = lines[5:]
    printed = run(*evaluate, tmp_path)
    (scores,) = [json.loads(path.read_text()) for path in (runs / "resnet20_gated").glob("evaluation-*.json")]
    assert scores["images"] == 200 and 0 <= scores["top1"] <= scores["top5"] <= 1 and "top1" in printed
    run(*audit, tmp_path)
    findings = json.loads((runs / "cifar100_extractor/audit.json").read_text())
    assert "classifier" in json.dumps(findings) and (runs / "cifar100_extractor/audit.md").is_file()
    run(*report, tmp_path)
    page = (runs / "resnet20_gated/report.html").read_text()
    assert f"{scores['loss']:.6g}" in page
    assert page.count("data:image/png;base64,") >= 2


@pytest.mark.slow
def test_its_picture_of_photos_is_drawn(tmp_path):
    make_data(tmp_path)
    ((command, arguments),) = commands(section("From an image to a prediction and its map"))
    run(command, arguments, tmp_path)
    picture = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))
    assert picture.shape[1] > picture.shape[0] > 100 and picture.std() > 10  # panels side by side, not blank


@pytest.mark.slow
def test_its_commands_for_released_models_run(tmp_path):
    make_data(tmp_path)
    evaluate, train, verify = commands(section("Use a released model"))
    run(*train, tmp_path, f"{SHORT} --warmup_epochs=0.25")
    assert len(epochs(tmp_path / "runs/zoo_gated")) == 2
    printed = run(*verify, tmp_path)
    assert all(name in printed for name in cdc_keras.zoo.names())
    assert "verified: files, cards, networks, golden outputs" in printed  # or it would have failed
    assert evaluate[0] == "evaluate"  # by the test below, which needs the data


@pytest.mark.long
def test_a_released_classifier_has_the_score_of_its_card_by_its_command(tmp_path):
    """DATA_DIR is where the data are."""
    (command, arguments), *_ = commands(section("Use a released model"), "evaluate")
    arguments = [x.replace("$HOME/tensorflow_datasets", os.environ["DATA_DIR"]) for x in arguments]
    printed = run(command, arguments, tmp_path)
    card = cdc_keras.zoo.info("cifar100_resnet20_gated").metrics
    top1 = next(metric.value for metric in card if (metric.split, metric.name) == ("test", "top1"))
    assert f"{top1:.4f}"[:5] in printed


def test_its_command_for_own_images_says_that_they_are_missing(tmp_path, monkeypatch):
    command, arguments = commands(section("Train on your own images"))[0]
    monkeypatch.chdir(tmp_path)
    said = refusal(command, *arguments)
    assert "my images" in said and "\n" not in said
    assert not (tmp_path / "runs").exists()


# Python


def example(text, number, folder, monkeypatch):
    """Returns (names, printed) of a Python block that was run in a folder."""
    monkeypatch.chdir(folder)
    scope = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(blocks(text, "python")[number], scope)
    return scope, printed.getvalue()


def test_its_first_example_predicts_and_gives_the_map(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    scope, printed = example(README, 0, tmp_path, monkeypatch)
    x, model = scope["x"], scope["model"]
    assert x.shape == (1, 32, 32, 3) and -1 <= x.min() < -0.5 and 0.5 < x.max() <= 1
    logits = keras.ops.convert_to_numpy(model(x))[0]
    names = cdc_keras.zoo.info("cifar100_resnet20_gated").class_names
    order = [printed.index(f"'{names[k]}'") for k in np.argsort(-logits)[:5]]
    assert order == sorted(order)  # the five largest logits, largest first
    attention = keras.ops.convert_to_numpy(scope["attention"](x))
    assert attention.shape == (1, 8, 8, 1) and 0 < attention.min() < attention.max() < 1.06


def test_its_second_example_loads_a_released_extractor(tmp_path, monkeypatch):
    scope, printed = example(README, 1, tmp_path, monkeypatch)
    assert scope["extractor"].output_shape == (None, 8, 8, 64) and not scope["extractor"].trainable_weights
    assert printed.strip() == str(cdc_keras.zoo.names())


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/gate.md"], ids=lambda page: page.name)
def test_its_example_gates_mobilenet_and_changes_no_prediction(page, tmp_path, monkeypatch):
    scope, _ = example(page.read_text(), -1, tmp_path, monkeypatch)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    plain, gated = (keras.ops.convert_to_numpy(scope[name](images)) for name in ("plain", "gated"))
    assert gated.shape == (2, 10) and np.array_equal(plain, gated)
    assert scope["gated"].get_layer("gate_attention").output.shape[-1] == 1
    assert len(scope["gated"].trainable_weights) > len(scope["plain"].trainable_weights)


@pytest.mark.parametrize("page", ["docs/zoo.md", "zoo/README.md"])
def test_the_examples_of_the_zoo_run(page, tmp_path, monkeypatch):
    example((ROOT / page).read_text(), 0, tmp_path, monkeypatch)


# Links and files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_every_page_of_the_manual_is_in_its_index():
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_every_flagfile_and_make_target_they_name_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"configs/[\w./]+\.flags", text):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"
        for target in re.findall(r"(?:^|`)make (\w+)", text, flags=re.M):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{page.name}: make {target}"


def test_the_folders_in_the_layout_exist():
    (layout,) = [block for block in blocks(README, "") if block.startswith("cdc_keras/")]
    for line in layout.splitlines():
        inside = ROOT / "cdc_keras" if line.startswith("  ") else ROOT
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            assert (inside / name).exists(), name


# Several machines


def launchers():
    """Returns the Slurm script and the shell script inside the Kubernetes manifest of docs/scaling.md."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    slurm = next(block for block in blocks(text, "sh") if "#SBATCH" in block)
    return {"slurm": slurm, "kubernetes": textwrap.dedent(re.search(r"- \|\n(.*?)\n +env:", text, re.S)[1])}


@pytest.mark.parametrize("launcher", ["slurm", "kubernetes"])
def test_the_launchers_give_every_worker_its_tf_config(launcher, tmp_path, monkeypatch):
    programs = {
        "scontrol": "echo host0; echo host1",
        "srun": 'shift; exec "$@"',
        "python": f'exec {sys.executable} "$@"',
        "cdc-keras": 'echo "$TF_CONFIG"; echo "$@"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "host[0-1]", "WORKERS": "2"}
    environment |= {"SLURM_NODEID": "1", "JOB_COMPLETION_INDEX": "1"}
    command = ["bash", "-c", launchers()[launcher]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config, line = done.stdout.splitlines()
    monkeypatch.setenv("TF_CONFIG", config)
    workers = cluster.from_environment()
    assert workers.index == 1 and len(workers.addresses) == 2
    command, *arguments = shlex.split(line)
    monkeypatch.chdir(ROOT)
    config = flags.config_from_flags(flags.parse(cli.COMMANDS[command].define, arguments))
    assert (config.strategy, config.dataset, config.network) == ("multi_worker", "imagenet2012", "resnet50")
