"""Whole runs through `train` and the command line, on tiny amounts of `shapes`."""

import concurrent.futures
import dataclasses
import errno
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tiny_runs
from commands import refusal, run_command
from runs_on_disk import newest_step

from cdc_keras import flags
from cdc_keras.config import RunConfig
from cdc_keras.data.pipeline import scale
from cdc_keras.errors import UserError
from cdc_keras.runs import callbacks, scoring, training
from cdc_keras.runs.evaluation import evaluate, load_run, measure, write
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load, load_context
from cdc_keras.runs.training import train
from cdc_keras.weights import fingerprint, load_weights, save_weights

EXTRACTOR = dataclasses.replace(tiny_runs.EXTRACTOR, epochs=2, discriminators=2, discriminator_reset_epochs=1)
PLAIN = dataclasses.replace(tiny_runs.CLASSIFIER, network="vgg13_slim")


pytestmark = pytest.mark.usefixtures("few_test_images")


@pytest.fixture(scope="module")
def extractor_run(few_test_images, tmp_path_factory):
    return train(EXTRACTOR, tmp_path_factory.mktemp("a run, with spaces") / "ex-tractor")


def weights_of(model):
    return [np.asarray(w) for w in model.weights]


def copy_of(run, folder):
    return RunFolder(shutil.copytree(run.path, folder / "copy"))


def test_a_run_folder_holds_settings_versions_metrics_checkpoints_and_pictures(extractor_run):
    notes = extractor_run.notes()
    assert notes["finished"] and notes["versions"]["keras"] == keras.__version__ and notes["hardware"]
    assert extractor_run.config() == EXTRACTOR.resolved(32)
    assert [row["epoch"] for row in extractor_run.rows()] == [1, 2]
    assert {"lambda_fool", "discriminator_accuracy", "fooling_gradient_norm", "repulsive_active"} <= set(
        extractor_run.rows()[0]
    )
    assert extractor_run.steps() == [4, 8]
    assert list((extractor_run.path / "tensorboard").glob("events*"))
    names = {path.name for path in extractor_run.pictures.glob("*.png")}
    assert names == {"curves.png", "reconstructions.png", "condition_swaps.png"}


def test_the_test_split_is_scored_after_every_epoch_if_asked(tmp_path):
    run = train(dataclasses.replace(PLAIN, test_every_epoch=True), tmp_path, pictures=False)
    (row,) = run.rows()
    assert sorted(name for name in row if name.startswith("test_")) == ["test_loss", "test_top1", "test_top5"]
    model, dataset, _ = load_run(run)
    logits = np.concatenate(
        [np.asarray(model.network(scale(dataset.test.images[i : i + 500]))) for i in range(0, len(dataset.test), 500)]
    )
    assert row["test_top1"] == pytest.approx(np.mean(logits.argmax(-1) == dataset.test.labels), abs=1e-3)


def test_a_control_is_gated_by_an_extractor_with_initial_weights_that_the_run_keeps(extractor_run, tmp_path):
    config = dataclasses.replace(PLAIN, extractor=str(extractor_run.path), gate_context="untrained")
    first, again, other = (load_context(dataclasses.replace(config, seed=s)).network.get_weights() for s in (0, 0, 1))
    run = train(config, tmp_path, pictures=False)
    kept = load_run(run)[0].network.get_layer("extractor").network.get_weights()
    trained = load(extractor_run.path).get_weights()

    def same(ours, theirs):
        return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))

    assert same(first, again) and same(first, kept) and not same(first, other) and not same(first, trained)


def test_the_stored_flags_start_the_same_run_again(extractor_run, capsys):
    values = flags.parse(flags.train, [f"--flagfile={extractor_run.path}/flags.txt"])
    train(flags.config_from_flags(values), extractor_run.path)
    assert "is finished: 2 epochs" in capsys.readouterr().err


def test_a_run_stopped_in_mid_epoch_goes_on_to_the_same_weights(extractor_run, tmp_path, monkeypatch):
    calls = []

    def stop_at_step_six(self, batch, logs=None):
        calls.append(batch)
        self.model.stop_training = self.signalled = len(calls) == 6

    monkeypatch.setattr(callbacks.StopOnSignal, "on_train_batch_end", stop_at_step_six)
    run = train(EXTRACTOR, tmp_path, pictures=False)
    assert not run.finished and run.steps() == [4, 6]
    run = train(EXTRACTOR, tmp_path, pictures=False)
    assert run.finished and len(run.rows()) == 2
    straight, resumed = (load_run(r)[0] for r in (extractor_run, run))
    for a, b in zip(weights_of(straight), weights_of(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_stops_the_run_and_leaves_the_last_good_checkpoint_alone(extractor_run, tmp_path, monkeypatch):
    run = copy_of(extractor_run, tmp_path)
    run.checkpoint(8).unlink()
    before = run.checkpoint(4).read_bytes()

    def poisoned(*args, **kwargs):
        return training_batches(*args, **kwargs).map(lambda images, labels: (images * np.nan, labels))

    training_batches = training.training_batches
    monkeypatch.setattr(training, "training_batches", poisoned)
    with pytest.raises(UserError, match="NaN or infinite.*the last checkpoint is from before"):
        train(EXTRACTOR, run.path)
    assert run.steps() == [4] and run.checkpoint(4).read_bytes() == before


def test_a_run_stopped_between_its_last_checkpoint_and_its_record_is_finished_by_the_same_command(
    extractor_run, tmp_path
):
    run = copy_of(extractor_run, tmp_path)
    weights = run.extractor_weights.read_bytes()
    run.extractor_weights.unlink()
    run.note(finished=False, extractor_sha256=None, last_epoch=None)
    assert train(EXTRACTOR, run.path, pictures=False).finished
    assert len(run.extractor_weights.read_bytes()) == len(weights)
    assert run.notes()["last_epoch"]["epoch"] == 2


def test_an_unfinished_extractor_gates_nothing(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    run.note(finished=False)
    with pytest.raises(UserError, match="has not finished training"):
        load(run.path)


def test_other_data_in_the_place_of_those_trained_on_are_refused(extractor_run):
    with pytest.raises(UserError, match="test_labels_sha256 differ"):
        other = training.load_dataset(EXTRACTOR)
        extractor_run.check_data(dataclasses.replace(other, test=other.test.take(slice(None, None, -1))))


def test_a_plain_run_of_another_network_is_refused_before_scoring(extractor_run):
    with pytest.raises(UserError, match="is to be gated and .* plain"):
        evaluate(extractor_run.path, plain=extractor_run.path)


def test_a_second_run_with_other_settings_is_refused_with_the_difference_named(extractor_run):
    with pytest.raises(UserError, match="seed is 0 there and 1 now; fool_weight is 0.0001 there and 0.1 now"):
        train(dataclasses.replace(EXTRACTOR, seed=1, fool_weight=0.1), extractor_run.path)


def test_a_folder_with_other_files_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="is no run folder"):
        train(EXTRACTOR, tmp_path)


def test_a_gated_classifier_trains_and_is_scored_with_pictures(extractor_run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", 50)  # of one batch there is no speed
    config = dataclasses.replace(PLAIN, extractor=str(extractor_run.path))
    run = train(config, tmp_path / "gated")
    plain = train(PLAIN, tmp_path / "plain", pictures=False)
    scores = evaluate(run.path, weights="best", plain=plain.path)
    assert 0 <= scores["top1"] <= scores["top5"] <= 1 and scores["images_per_second"] > 0
    counts = np.loadtxt(run.path / "confusion-test-best.csv", delimiter=",", skiprows=1, usecols=range(1, 11))
    assert counts.sum() == scores["images"] and np.trace(counts) == pytest.approx(scores["top1"] * scores["images"])
    assert {"strips.png", "confusion-test-best.png", "curves.png"} == {p.name for p in run.pictures.glob("*.png")}
    # the extractor inside the trained classifier is the one of its own run, to the bit
    inside = load_run(run)[0].network.get_layer("extractor").network
    for a, b in zip(weights_of(inside), weights_of(load(extractor_run.path)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def residual_run(tmp_path_factory):
    """A classifier gated by the residual unit alone."""
    config = dataclasses.replace(PLAIN, gate_attention=False)
    return train(config, tmp_path_factory.mktemp("residual") / "run", pictures=False)


def test_the_residual_unit_alone_needs_no_extractor(residual_run):
    names = [layer.name for layer in load_run(residual_run)[0].network.layers]
    assert "gate_block3_conv2_bn_out" in names and "extractor" not in names


def test_complexity_counts_the_model_of_a_run_scope_by_scope(residual_run, capsys):
    run_command("complexity", f"--model={residual_run.path}")
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines()] == ["scope", "---", "network", "gate", "all"]


def test_changed_extractor_weights_are_refused(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    weights = bytearray(run.extractor_weights.read_bytes())
    weights[-1] ^= 1
    run.extractor_weights.write_bytes(weights)
    with pytest.raises(UserError, match="sha256 differs"):
        load(run.path)


def test_a_truncated_checkpoint_is_named(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    run.checkpoint(8).write_bytes(run.checkpoint(8).read_bytes()[:1000])
    with pytest.raises(UserError, match="step-00000008.weights.h5 cannot be loaded"):
        load_run(run)


def test_fingerprints_tell_a_deeper_model_apart_where_keras_does_not(tmp_path):
    def tower(depth):
        x = inputs = keras.Input((4,))
        for i in range(depth):
            x = keras.layers.Dense(4, name=f"dense{i}")(x)
        return keras.Model(inputs, x)

    assert fingerprint(tower(2)) == fingerprint(tower(2)) != fingerprint(tower(3))


def test_a_full_disk_while_saving_leaves_the_old_file_and_says_so(tmp_path):
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512)])
    path = tmp_path / "step-00000001.weights.h5"
    save_weights(model, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match="could not save .*step-00000001.weights.h5: File too large; free some space"
        ):
            save_weights(model, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
    load_weights(model, path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run_dir=RUN", "--task=extractor", "--epochs=0"], "epochs"),
        (["--run_dir=RUN", "--task=extractor", "stray"], "stray"),
        (["--run_dir=RUN"], "task"),
        (["--run_dir=RUN", "--task=classifier", "--extractor=RUN"], "is no run folder"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_status_that_is_not_zero(arguments, sentence, tmp_path):
    said = refusal("train", *(a.replace("RUN", str(tmp_path / "run")) for a in arguments))
    assert sentence in said and "\n" not in said
    assert not (tmp_path / "run").exists()  # the corrected command is not refused by what this one left


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(batch_size=100, train_limit=20), "batch_size is 100 but there are only 20"),
        (dict(dataset="cifar100", data_dir="RUN"), "download_and_prepare"),
        (dict(task="classifier", epochs=2), "warm-up of 2.0 epochs does not fit"),
        (dict(image_size=48), "presets for 32 px"),
        (dict(task="classifier", gate_attention=False, image_size=64, train_limit=256), "give gate_sites"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_folder_is_made(settings, sentence, tmp_path):
    run = tmp_path / "run"
    settings = {name: str(run) if value == "RUN" else value for name, value in settings.items()}
    with pytest.raises(UserError, match=sentence):
        train(RunConfig(**{"train_limit": 64, "batch_size": 16} | settings), run)
    assert not run.exists()


def test_two_do_not_train_in_one_folder_at_a_time(extractor_run):
    with extractor_run.lock(), pytest.raises(UserError, match="another process is training in"):
        train(EXTRACTOR, extractor_run.path)
    train(EXTRACTOR, extractor_run.path)


def test_a_lock_goes_with_the_process_that_is_killed(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    program = (
        "import sys, time; from cdc_keras.runs.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).lock(): print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, run.path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is training in"), run.lock():
            pass
        with RunFolder(run.path, writes=False).lock():  # a worker that only reads is not kept out
            pass
        process.kill()
    with run.lock():
        pass


def test_training_works_outside_the_main_thread(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(train, tiny_runs.CLASSIFIER, tmp_path / "run").result().finished


def test_a_run_killed_before_its_last_pictures_has_them_once_it_is_finished(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    names = [path.name for path in run.pictures.glob("*.png")]
    run.note(finished=False)
    for path in run.pictures.glob("*.png"):
        path.write_text("of an earlier epoch")
    assert train(EXTRACTOR, run.path).finished
    assert all((run.pictures / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_start(extractor_run, tmp_path):
    run = copy_of(extractor_run, tmp_path)
    left = [run.checkpoints / ".step-00000012.partial.weights.h5", run.path / ".metrics.csv.partial"]
    for path in left:
        path.write_text("half")
    train(EXTRACTOR, run.path)
    assert not any(path.exists() for path in left) and run.steps() == [4, 8]


def test_a_folder_that_cannot_be_written_costs_no_scores(extractor_run, tmp_path, monkeypatch):
    run = copy_of(extractor_run, tmp_path)

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    evaluation = measure(run.path, split="validation")
    assert evaluation.scores["reconstruction_loss"] > 0
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_bytes", denied)
        patch.setattr(pathlib.Path, "unlink", denied)
        with pytest.raises(UserError, match="could not write .*evaluation.*: Permission denied; choose another place"):
            write(evaluation)


def test_weights_that_may_not_be_written_say_so(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", denied)
    monkeypatch.setattr(pathlib.Path, "unlink", denied)
    with pytest.raises(UserError, match="could not save .*: Permission denied; choose another place") as error:
        save_weights(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]), tmp_path / "a.weights.h5")
    assert "free some space" not in str(error.value)


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a run folder"):
        train(RunConfig(train_limit=64), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_ctrl_c_in_mid_epoch_saves_and_the_same_command_goes_on(tmp_path):
    run = RunFolder(tmp_path / "run")

    def start_and_interrupt():
        # An epoch of some minutes, so that no machine is done with it before the signal.
        arguments = [f"--run_dir={run.path}", "--task=extractor", "--train_limit=10000", "--batch_size=2", "--epochs=1"]
        arguments.append("--checkpoint_every=2")
        before = newest_step(run.path)
        process = subprocess.Popen([sys.executable, "train.py", *arguments], stderr=subprocess.PIPE, text=True)
        while newest_step(run.path) == before:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and "Traceback" not in stderr, stderr
        return stderr

    stderr = start_and_interrupt()
    first = run.steps()[-1]
    assert 0 < first < 5000 and f"saved after step {first} of 5000" in stderr
    stderr = start_and_interrupt()
    assert f"going on after step {first}" in stderr and run.steps()[-1] > first
    assert not run.finished and run.rows() == []
