"""The commands: one table, help without a backend, one sentence and a status for every mistake."""

import dataclasses
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import types

import pytest
from commands import refusal, run_command

from cdc_keras import cli, flags
from cdc_keras.commands.train import next_steps
from cdc_keras.config import RunConfig
from cdc_keras.errors import UsageError, UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Without what the Makefile sets, as a user starts it.
PLAIN = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def python(*arguments, **kwargs):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=PLAIN, **kwargs)


def parse(*arguments):
    return flags.config_from_flags(flags.parse(flags.train, arguments))


def test_every_command_has_a_body_and_every_body_a_command():
    bodies = {path.stem for path in (ROOT / "cdc_keras" / "commands").glob("*.py")} - {"__init__"}
    assert bodies == set(cli.COMMANDS)


def test_the_overview_lists_every_command_and_help_needs_no_backend():
    program = (
        "import sys; from cdc_keras import cli; cli.main([]); "
        "[cli.main([name, '--help']) for name in cli.COMMANDS]; "
        "assert not {'keras', 'tensorflow', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = python("-c", program)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert all(re.search(rf"^  {name} +\S", done.stdout, re.M) for name in cli.COMMANDS)


def test_help_of_train_answers_within_a_second_of_computing():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-m", "cdc_keras", "train", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_train_starts_without_what_it_does_not_need():
    program = """if True:
        import sys
        from cdc_keras.backend import start_keras
        start_keras(lean=True)
        import cdc_keras.commands.train
        print(sorted({"tensorflow", "jax", "sklearn", "scipy.stats", "matplotlib.pyplot"} & set(sys.modules)))
        import matplotlib.pyplot, sklearn  # they are there for whoever wants them later
    """
    done = python("-c", program)
    assert (done.returncode, done.stdout) == (0, "['tensorflow']\n"), done.stderr


def test_help_of_train_lists_every_setting_once_in_its_group_with_help_and_default():
    sections = [section for section in cli.help_text("train").split("\n\n") if "\n  --" in section]
    groups = [group for group in flags.HEADINGS if group != "flags"]
    assert len(sections) == len(groups)
    listed = {}
    for group, section in zip(groups, sections, strict=True):
        heading, *entries = section.split("\n  --")
        assert " ".join(heading.split()) == flags.HEADINGS[group]
        for entry in entries:
            name, text = re.fullmatch(r"(\w+)(.*)", " ".join(entry.split())).groups()
            assert name not in listed
            listed[name] = group, text
    assert set(listed) == {"run_dir"} | {field.name for field in dataclasses.fields(RunConfig)}
    for field in dataclasses.fields(RunConfig):
        group, text = listed[field.name]
        assert group == field.metadata["group"] and text.endswith(field.metadata["help"])
        if isinstance(field.default, (int, float)):
            assert f"default {str(field.default).lower()})" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_example_of_a_command_is_one_that_it_takes(name):
    values = flags.parse(cli.COMMANDS[name].define, shlex.split(cli.COMMANDS[name].example))
    assert all(values[flag].value is not None for flag in cli.COMMANDS[name].needed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give --task and --run_dir; for example: cdc-keras train --flagfile=configs/"),
        (["--run_dir=x"], "give --task; for example"),
        (["--epoch=3"], "there is no flag --epoch; did you mean --epochs?"),
        (["--zzz=3"], "there is no flag --zzz; --help lists all"),
        (["--epochs=0"], "--epochs is a whole number of at least 1, not '0'"),
        (["--crop_area=2"], "--crop_area is a number of at least 0 and at most 1, not '2'"),
        (["--task=extracto"], "--task is one of extractor, classifier, not 'extracto'"),
        (["--flip=maybe"], "--flip is true or false, not 'maybe'"),
        (["--noflip=x"], "--noflip=x does not take an argument"),
        (["--epochs"], "Missing value for flag --epochs"),
        (["stray"], "flags are given as --name=value; what is 'stray'?"),
        (["--flagfile=nowhere.flags"], "there is no flagfile nowhere.flags"),
    ],
)
def test_a_wrong_command_line_gets_one_sentence_that_names_the_flag(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command("train", *arguments)
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and told.startswith(f"error: {sentence}") and told.count("\n") == 1


def test_a_reader_that_closes_its_end_is_no_error():
    program = f"{sys.executable} -m cdc_keras train --help | true"
    done = subprocess.run(["bash", "-c", program], capture_output=True, env=PLAIN)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(
    ("flags_", "sentence"),
    [
        (["--network=resnet9"], "there is no network 'resnet9'"),
        (["--dataset=folder", "--data_dir=missing"], "there is no folder missing"),
        (["--dataset=folder", "--data_dir=~nosuchuser/x"], "~nosuchuser/x: the home folder ~nosuchuser is not known"),
        (["--dataset=folder", "--data_dir=latin1"], "the name of the folder 'latin1/caf\\udce9' is not UTF-8"),
        (["--dataset=folder", "--data_dir=empty"], "the class folder empty/a holds no image"),
        (["--dataset=folder", "--data_dir=empty/a"], "expected at least 2 class folder(s) in empty/a, found 0"),
    ],
)
def test_what_is_wrong_with_settings_and_folders_is_told_before_the_backend_starts(flags_, sentence, tmp_path):
    (tmp_path / "empty" / "a").mkdir(parents=True)
    os.makedirs(os.fsencode(tmp_path) + b"/latin1/caf\xe9")
    without_keras = "import sys; sys.modules['keras'] = None; from cdc_keras import cli; cli.main(sys.argv[1:])"
    environment = PLAIN | {"PYTHONPATH": str(ROOT)}
    arguments = ["train", "--task=classifier", "--image_size=32", "--run_dir=x", *flags_]
    done = subprocess.run(
        [sys.executable, "-c", without_keras, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.startswith(f"error: {sentence}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evalute"])
    assert stopped.value.code == 2 and "did you mean evaluate?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UserError("the disk is full"), 1, "error: the disk is full\n"),
        (UsageError("--a goes without --b"), 2, "error: --a goes without --b\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from there\n"),
    ],
)
def test_errors_for_people_and_ctrl_c_end_a_command_with_a_sentence(error, status, sentence, monkeypatch, capsys):
    def main(values):
        raise error

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: types.SimpleNamespace(main=main))
    with pytest.raises(SystemExit) as stopped:
        cli.run("demo", [])
    assert stopped.value.code == status and capsys.readouterr().err == sentence


def test_any_other_error_is_not_hidden(monkeypatch):
    def main(values):
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: types.SimpleNamespace(main=main))
    with pytest.raises(ValueError, match="a mistake of ours"):
        cli.run("demo", [])


def test_nothing_but_the_sentence_is_on_the_terminal():
    done = python("-m", "cdc_keras", "evaluate", "--model=nowhere")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("error: nowhere is no run folder") and done.stderr.count("\n") == 1


def test_an_import_that_fails_says_why_in_full(monkeypatch, capfd):
    def fail(name):
        os.write(2, b"no such driver\n")
        raise ImportError("the backend")

    monkeypatch.setattr(cli.importlib, "import_module", fail)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with pytest.raises(ImportError, match="the backend"):
        cli.run("demo", [])
    assert "no such driver" in capfd.readouterr().err


def test_the_log_level_of_the_user_is_kept(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda name: os.write(2, b"a note\n") and types.SimpleNamespace(main=print)
    )
    cli.run("demo", [])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0" and "a note" in capfd.readouterr().err


def test_a_flagfile_may_have_comments_a_byte_order_mark_and_other_flagfiles(tmp_path):
    base, own = tmp_path / "base.flags", tmp_path / "own.flags"
    base.write_text("--task=classifier\n--epochs=3\n")
    own.write_text(f"\ufeff# Mine\n\n--flagfile={base}\n  --epochs=4  # not 3\n// --seed=2\n", encoding="utf-8")
    assert parse(f"--flagfile={own}", "--batch_size=7") == RunConfig(task="classifier", epochs=4, batch_size=7)
    assert parse("--flagfile", str(own), "--epochs=5").epochs == 5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"--epochs=3\nepochs: 4\n", r"line 2 of the flagfile .* is not --name=value: 'epochs: 4'"),
        (b"--flagfile=SELF\n", "names itself"),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_a_flagfile_that_is_none_is_refused(content, sentence, tmp_path):
    path = tmp_path / "my.flags"
    path.write_bytes(content.replace(b"SELF", str(path).encode()))
    with pytest.raises(UsageError, match=sentence):
        parse(f"--flagfile={path}")


def test_the_flagfiles_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("--flagfile=configs/paper/cifar100_extractor.flags").dataset == "cifar100"
    assert refusal("train", "--flagfile=configs/nowhere.flags") == (
        "there is no flagfile configs/nowhere.flags; name one that is there"
    )


@pytest.mark.parametrize("task", ["extractor", "classifier"])
def test_what_training_proposes_next_are_commands(task):
    text = next_steps(RunConfig(task=task, data_dir="my data"), "runs/my run")
    proposed = [shlex.split(line) for line in text.splitlines() if "cdc-keras" in line]
    assert [command[1] for command in proposed] == ["evaluate", "report"] + ["audit", "train"] * (task == "extractor")
    for _, name, *arguments in proposed:
        values = flags.parse(cli.COMMANDS[name].define, arguments)
        assert "runs/my run" in (values.extractor if name == "train" else values.model)
    if task == "extractor":
        assert parse(*proposed[-1][2:]) == RunConfig(task="classifier", data_dir="my data", extractor="runs/my run")


@pytest.mark.long
def test_the_wheel_trains_in_another_directory(tmp_path):
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    for name in ("cdc_keras", "configs", "zoo"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}", source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", f"--target={site}", wheel], check=True)
    assert (site / "cdc_keras" / "py.typed").is_file() and wheel.stat().st_size < 40_000_000
    assert not list(site.rglob("disentangler.weights.h5")) and list(site.rglob("extractor.weights.h5"))

    def run(*arguments, status=0):
        command = [sys.executable, site / "bin" / "cdc-keras", *arguments]
        environment = PLAIN | {"PYTHONPATH": str(site)}
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done

    assert "train" in run("--help").stdout
    small = ["--epochs=1", "--train_limit=64", "--batch_size=16", "--fool_ramp_fraction=0.5"]
    done = run("train", "--flagfile=configs/shapes_extractor.flags", *small, "--run_dir=runs/extractor")
    assert "cdc-keras audit --model=runs/extractor" in done.stdout and (elsewhere / "runs/extractor/run.json").is_file()
    assert not re.search(r"^[IWE]\d{4} |oneDNN|cuda|absl", done.stderr, re.M | re.I), done.stderr
    done = run("zoo", "--names=shapes", "--numbers=false")
    assert f"records in {site / 'cdc_keras' / 'zoo_records'}" in done.stdout and "verified: files" in done.stdout
    assert "shapes: left out of the package: " in done.stderr and "disentangler.weights.h5" in done.stderr
    refused = run("audit", "--model=zoo:shapes", "--out=audit", status=1).stderr
    assert refused.startswith("error: ") and refused.count("\n") == 1 and "comes with the source" in refused
