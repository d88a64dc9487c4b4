"""A full disk, and a folder of somebody else: a command says it in a sentence and leaves no half file."""

import contextlib
import errno
import os
import pathlib
import resource
import shutil

import pytest
from commands import refusal, run_command
from records import quick_probes, released, runs  # noqa: F401

from cdc_keras import weights
from cdc_keras.audit import audit
from cdc_keras.errors import UserError
from cdc_keras.release.add import add
from cdc_keras.report import page
from cdc_keras.runs import evaluation
from cdc_keras.runs.folder import RunFolder

TRAIN = (
    "--task=classifier",
    "--network=resnet8",
    "--train_limit=64",
    "--batch_size=16",
    "--epochs=1",
    "--warmup_epochs=0.1",
)


@contextlib.contextmanager
def room_for(size):
    """No file may become larger than `size` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def files(folder):
    """Returns {path: content} of the files below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(runs, tmp_path):  # noqa: F811
    """A copy of a finished extractor's run, whose training makes the tests with it slow."""
    return shutil.copytree(runs / "extractor", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "flags"),
    [
        ("train", 0, (*TRAIN, "--run_dir=OUT")),
        ("train", 20_000, (*TRAIN, "--run_dir=OUT")),
        ("evaluate", 0, ("--model=RUN", "--out=OUT")),
        ("evaluate", 20_000, ("--model=RUN", "--out=OUT")),
        ("audit", 20_000, ("--model=RUN", "--limit=40", "--out=OUT")),
        ("export", 20_000, ("--model=RUN", "--out=OUT")),
        ("report", 20_000, ("--model=RUN", "--out=OUT")),
        ("tables", 0, ("--table=2", "--dataset=shapes", "--smoke", "--seeds=1", "--rows=plain", "--out=OUT/t")),
        ("demo", 0, ("--out=OUT",)),
    ],
)
def test_a_full_disk_is_told_in_a_sentence_and_leaves_no_half_file(name, size, flags, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    flags = [flag.replace("RUN", str(run)).replace("OUT", str(out)) for flag in flags]
    if name == "tables":
        flags.append(f"--runs_dir={out / 'runs'}")
    before = files(run)
    with room_for(size):
        said = refusal(name, *flags)
    assert any(os.strerror(number) in said for number in (errno.EFBIG, errno.ENOSPC)) and "\n" not in said, said
    assert files(run) == before
    left = [path for path in files(out) if "partial" in str(path) or path.suffix == ".tmp"] if out.exists() else []
    assert not left


@pytest.mark.slow
def test_a_record_is_added_whole_or_not_at_all(runs, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CDC_KERAS_ZOO", str(tmp_path))
    with room_for(20_000), pytest.raises(UserError, match=os.strerror(errno.EFBIG)):
        add(runs / "extractor", "mine")
    assert not files(tmp_path)


@pytest.mark.slow
def test_scores_are_printed_before_they_are_written(run, monkeypatch, capsys):
    def refuse(path, content):
        raise UserError(f"could not write {path}")

    monkeypatch.setattr(weights, "write_bytes", refuse)
    before = files(run)
    assert "could not write" in refusal("evaluate", f"--model={run}")
    assert "reconstruction_loss" in capsys.readouterr().out
    assert "could not write" in refusal("audit", f"--model={run}", "--limit=40")
    assert "reads the category from T" in capsys.readouterr().out
    assert files(run) == before


@pytest.mark.slow
def test_a_run_of_somebody_else_is_scored_and_reported_elsewhere(run, tmp_path):
    before = files(run)
    run_command("evaluate", f"--model={run}", f"--out={tmp_path / 'scores'}")
    run_command("report", f"--model={run}", f"--out={tmp_path / 'page'}")
    assert files(run) == before
    for name in ("scores", "page"):
        there = files(tmp_path / name)
        assert {"evaluation-test-last.json", "pictures/reconstructions.png"} <= set(map(str, there))
    assert pathlib.Path("report.html") in files(tmp_path / "page")


@pytest.mark.slow
@pytest.mark.parametrize("function", [page.report, audit.audit])
def test_a_folder_that_cannot_be_written_is_told_before_the_work(function, run, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(weights.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(evaluation, "load_run", None)
    monkeypatch.setattr(audit, "load_dataset", None)
    with pytest.raises(
        UserError, match=f"could not write to .*{os.strerror(errno.EACCES)}; choose another place, .*--out"
    ):
        function(run)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "choose another place"), (errno.EROFS, "choose another place"), (errno.ENOSPC, "free some space")],
)
def test_an_error_of_writing_is_told_as_what_it_is(number, advice, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    weights.write_text(path, "before")

    def refuse(path, content):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=f"{os.strerror(number)}; {advice}"):
        weights.write_text(path, "after")
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.slow
def test_what_a_kill_left_is_gone_after_the_next_start(run):
    left = [run / name / ".x.partial" for name in (".", "checkpoints", "pictures")]
    for path in left:
        path.write_bytes(b"half")
    RunFolder(run).remove_partial_files()
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize(
    "damage", [lambda text: text[: len(text) // 2], lambda text: b"\xff" + text, lambda text: b"7"]
)
def test_a_damaged_file_of_a_run_is_named(name, damage, run):
    (run / name).write_bytes(damage((run / name).read_bytes()))
    assert f"{name} is damaged" in refusal("evaluate", f"--model={run}")


def test_a_damaged_metrics_csv_is_named(run):
    (run / "metrics.csv").write_text("epoch,loss\n1,half a nu")
    with pytest.raises(UserError, match="metrics.csv is damaged"):
        RunFolder(run).rows()


@pytest.mark.parametrize("place", ["x" * 300, "~nosuchuser/x", "/proc/nowhere"])
def test_places_that_cannot_be_are_one_sentence(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for said in (
        refusal("evaluate", f"--model={place}"),
        refusal("train", *TRAIN, f"--run_dir={place}/y"),
        refusal("train", *TRAIN, "--dataset=folder", "--image_size=32", f"--data_dir={place}", "--run_dir=y"),
        refusal("report", "--model=zoo:shapes", f"--images={place}"),
    ):
        assert "\n" not in said
        assert ("the home folder ~nosuchuser is not known" in said) == place.startswith("~")
    assert not os.listdir(tmp_path)
