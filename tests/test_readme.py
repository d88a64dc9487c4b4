"""What README says: its numbers are those of the records, and its commands run."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from absl import flags

from cdc_keras.audit import __main__ as audit
from cdc_keras.devices import cluster
from cdc_keras.tables import __main__ as tables
from cdc_keras.tables.jobs import read_flags
from cdc_keras.tables.systems import rows

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_its_numbers_are_those_of_the_records():
    subprocess.run([sys.executable, "docs/fill.py", "--check"], check=True, cwd=ROOT)


def test_every_file_and_make_target_it_names_exists():
    for path in re.findall(r"(?:configs|docs|benchmarks)/[\w./]+\.(?:flags|png|py)", README):
        assert (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", "\n".join(blocks("sh"))):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def commands(program, zoo=False):
    """The arguments of the commands of `program`, those that name a record of the zoo or the others."""
    lines = "\n".join(blocks("sh")).splitlines()
    found = [line.removeprefix(f"python {program} ") for line in lines if line.startswith(f"python {program}")]
    return [line for line in found if zoo == ("zoo" in line)]


def small(command, folder):
    """The README command on little data: the names of flags and flagfiles are its own, sizes and places are ours."""
    command = command.replace("runs/", f"{folder}/runs/").replace("$HOME/tensorflow_datasets", str(folder / "data"))
    return command.replace('"my images"', f'"{folder / "my images"}"')


def make_cifar100(data):
    rng = np.random.default_rng(0)
    data.mkdir()
    sizes = {"train": 400, "test": 200}
    arrays = {f"x_{s}": rng.integers(256, size=(n, 32, 32, 3), dtype=np.uint8) for s, n in sizes.items()}
    arrays |= {f"y_{s}": np.arange(n) % 100 for s, n in sizes.items()}
    np.savez(data / "cifar100.npz", **arrays)


@pytest.mark.slow
def test_its_commands_run_from_the_extractor_to_the_score(tmp_path):
    make_cifar100(tmp_path / "data")
    train, evaluate = commands("train.py"), commands("evaluate.py")
    assert len(train) == 4 and len(evaluate) == 1
    for command in train[:3]:
        extra = "--epochs=2 --train_limit=128 --batch_size=32 --extractor=" if "gated" in command else ""
        extra = (
            f"{extra}{tmp_path}/runs/cifar100_extractor" if extra else "--epochs=2 --train_limit=128 --batch_size=32"
        )
        run(f"train.py {small(command, tmp_path)} {extra}")
    printed = run(f"evaluate.py {small(evaluate[0], tmp_path)}")
    assert "top1" in printed and (tmp_path / "runs/resnet20_gated/pictures/strips.png").is_file()
    report, strip = commands("-m cdc_keras.visualize"), commands("-m cdc_keras.visualize", zoo=True)
    assert len(report) == len(strip) == 1
    run(f"-m cdc_keras.visualize {small(report[0], tmp_path)}")
    assert (tmp_path / "runs/resnet20_gated/report.html").is_file()
    (tmp_path / "photos").mkdir()
    shutil.copy(ROOT / "docs/demo_strips.png", tmp_path / "photos")
    strip = strip[0].replace("--images=", f"--images={tmp_path}/").replace("--out=", f"--out={tmp_path}/")
    run(f"-m cdc_keras.visualize {strip}")
    assert (tmp_path / "strip.png").is_file()


@pytest.mark.slow
def test_a_released_extractor_gates_a_classifier_by_its_command(tmp_path):
    make_cifar100(tmp_path / "data")
    (command,) = commands("train.py", zoo=True)
    run(f"train.py {small(command, tmp_path)} --epochs=2 --warmup_epochs=0.25 --train_limit=128 --batch_size=32")
    assert (tmp_path / "runs/zoo_gated/metrics.csv").is_file()


@pytest.mark.long
def test_a_released_classifier_is_scored_by_its_command():
    """DATA_DIR is where the data are."""
    (command,) = commands("evaluate.py", zoo=True)
    assert "top1" in run(f"evaluate.py {command.replace('$HOME/tensorflow_datasets', os.environ['DATA_DIR'])}")


def test_the_audit_command_has_flags_that_exist():
    (command,) = commands("-m cdc_keras.audit")
    values = flags.FlagValues()
    audit.define(values)
    assert values(["audit", *command.split()]) == ["audit"]


@pytest.mark.long
def test_the_audit_command_runs_on_what_the_training_commands_left(tmp_path):
    make_cifar100(tmp_path / "data")
    for command in commands("train.py")[:2]:
        run(f"train.py {small(command, tmp_path)} --epochs=2 --train_limit=128 --batch_size=32")
    (command,) = commands("-m cdc_keras.audit")
    printed = run(f"-m cdc_keras.audit {small(command, tmp_path)}")
    folder = tmp_path / "runs" / "cifar100_extractor"
    assert (folder / "audit.md").read_text() in printed
    assert (folder / "audit.json").is_file() and (folder / "audit.png").is_file()


def test_the_commands_of_the_tables_have_flags_and_rows_that_exist():
    for command in commands("-m cdc_keras.tables"):
        values = flags.FlagValues()
        tables.define(values)
        assert values(["tables", *command.split()]) == ["tables"]
        for number in values.table or ():
            assert rows(number, networks=values.networks, wanted=values.rows)
        if values.classifier_flags:
            assert read_flags(ROOT / values.classifier_flags).task == "classifier"


def run(command):
    done = subprocess.run(f"{sys.executable} {command}", shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_folder_command_asks_for_what_is_missing(tmp_path):
    done = subprocess.run(
        f"{sys.executable} train.py {small(commands('train.py')[3], tmp_path)}",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "my images" in done.stderr and "Traceback" not in done.stderr


def test_its_python_example_loads_a_released_extractor():
    scope = {}
    exec(blocks("python")[0], scope)
    assert scope["extractor"].output_shape == (None, 8, 8, 64)


def test_its_python_example_gates_mobilenet(monkeypatch, tmp_path):
    from cdc_keras.networks import autoencoder
    from cdc_keras.runs import trained as sources

    monkeypatch.setattr(sources, "load", lambda path: autoencoder.encoder(32))
    scope = {}
    exec(blocks("python")[1], scope)
    assert scope["gated"].output_shape == (None, 10)
    assert "extractor" in [layer.name for layer in scope["gated"].layers]


def launchers():
    """Returns the Slurm script and the shell script inside the Kubernetes manifest of docs/scaling.md."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    slurm = next(block for block in re.findall(r"```sh\n(.*?)```", text, re.S) if "#SBATCH" in block)
    return {"slurm": slurm, "kubernetes": textwrap.dedent(re.search(r"- \|\n(.*?)\n +env:", text, re.S)[1])}


@pytest.mark.parametrize("launcher", ["slurm", "kubernetes"])
def test_the_launchers_of_the_scaling_document_give_every_worker_its_tf_config(launcher, tmp_path, monkeypatch):
    commands = {
        "scontrol": "echo host0; echo host1",
        "srun": 'shift; exec "$@"',
        "python": f'exec {sys.executable} "$@"',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").write_text("import os, sys; print(os.environ['TF_CONFIG']); print(' '.join(sys.argv[1:]))")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "host[0-1]", "WORKERS": "2"}
    environment |= {"SLURM_NODEID": "1", "JOB_COMPLETION_INDEX": "1"}
    command = ["bash", "-c", launchers()[launcher]]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config, flags = done.stdout.splitlines()
    monkeypatch.setenv("TF_CONFIG", config)
    workers = cluster.from_environment()
    assert workers.index == 1 and len(workers.addresses) == 2
    assert flags.startswith("--strategy=multi_worker --flagfile=configs/paper/imagenet.flags")
    assert "--run_dir=/shared" in flags
