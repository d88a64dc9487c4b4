"""The run folder: what a run was asked for, what it measured, and its checkpoints, written so that nothing is lost."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import re
import sys

import filelock

from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.paths import expanded
from cdc_keras.weights import fingerprint, load_weights, save_weights, write_text

CHECKPOINT = re.compile(r"step-(\d{8})\.weights\.h5")
# May differ between the calls that share a run folder: they change how fast it goes or how long, not what a step does.
FREE_TO_CHANGE = ("data_dir", "steps_per_call", "checkpoint_every", "strategy")
# What a folder may hold whose making was cut short.
WRITTEN_BEFORE_CONFIG = {"checkpoints", "pictures", "extractor.json", "run.json", "flags.txt", ".config.json.partial"}


class RunFolder:
    """A run folder on disk.

    `config.json` and `flags.txt` hold the resolved settings, `run.json` versions, hardware and results, `metrics.csv` a
    row per epoch, `tensorboard/` the same curves, `checkpoints/` the states to go on from, `pictures/` PNG files.

    Args:
        path: the folder; it need not exist.
        writes: False for a worker that only reads what the chief writes: `create`, `note`, `save_checkpoint` and
            `write_rows` do nothing.
    """

    def __init__(self, path, writes=True):
        self.path = expanded(path)
        self.writes = writes

    def check(self, config):
        """Writes nothing; returns if a run of `config` may start or go on here.

        Raises:
            UserError: the folder belongs to a run with other settings, which are named, or is none.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run folder; choose another")
        if self.config_path.exists():
            self._check_same(config)
        elif self.path.exists() and any(path.name not in WRITTEN_BEFORE_CONFIG for path in self.path.iterdir()):
            raise UserError(f"{self.path} has files in it but is no run folder; choose an empty or new one")

    def create(self, config, extractor=None):
        """Makes the folder for `config`, unless it is there.

        Args:
            config: the resolved `RunConfig`.
            extractor: the `runs.trained.Trained` of what gates it.

        Raises:
            UserError: it cannot be written.
        """
        if self.config_path.exists():
            return
        if not self.writes:
            raise UserError(f"{self.path} is not the chief's; put run_dir on a file system that all workers share")
        try:
            for folder in (self.checkpoints, self.pictures):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.path}: {error.strerror}") from error
        if extractor is not None:
            write_text(self.extractor_config, extractor.config.to_json())
            self.note(extractor_sha256=extractor.sha256, extractor_categories=len(extractor.class_names))
        write_text(self.path / "flags.txt", flagfile(config))
        write_text(self.config_path, config.to_json())  # last: a folder with it is complete

    @contextlib.contextmanager
    def lock(self):
        """Keeps other processes from training in this folder, which must be there, until the context is left.

        The system holds the lock, so that it goes with a process that is killed. Workers that only read need none.

        Raises:
            UserError: another process is doing so.
        """
        if not self.writes:
            yield
            return
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise UserError(f"another process is training in {self.path}; wait for it, or stop it first") from None
        except (OSError, NotImplementedError):  # a file system that has no such locks
            pass
        try:
            yield
        finally:
            lock.release()

    def remove_partial_files(self):
        """Removes what a process left behind that was killed while it wrote; only for who holds the lock."""
        if self.writes:
            for folder in (self.path, self.checkpoints, self.pictures):
                for path in folder.glob(".*.partial*"):
                    path.unlink(missing_ok=True)

    def _check_same(self, config):
        stored, wanted = self.config().effective(), config.effective()
        different = [
            f"{name} is {stored.get(name)!r} there and {wanted.get(name)!r} now"
            for name in stored | wanted
            if stored.get(name) != wanted.get(name) and name not in FREE_TO_CHANGE
        ]
        if different:
            raise UserError(f"{self.path} holds another run: {'; '.join(different)}. Choose another folder")

    def check_data(self, dataset):
        """Notes which data the run is trained on, or checks that they are still the same.

        Raises:
            UserError: naming what differs.
        """
        seen = {"classes": list(dataset.class_names)}
        for name in ("train", "validation", "test"):
            split = getattr(dataset, name)
            seen[f"{name}_images"] = len(split)
            if hasattr(split, "labels"):
                seen[f"{name}_labels_sha256"] = hashlib.sha256(split.labels.astype("int32").tobytes()).hexdigest()
        stored = self.notes().get("data")
        if stored is None:
            self.note(data=seen)
        elif stored != seen:
            names = [name for name in seen if seen[name] != stored.get(name)]
            raise UserError(
                f"the data are not those that {self.path} was trained on: {', '.join(names)} differ; give the data_dir "
                "of then, with the data as they were"
            )

    def check_fingerprint(self, model):
        """Notes the fingerprint of `model`, or checks that it is still the same.

        Raises:
            UserError: the weights in this folder are of another network.
        """
        mark, stored = fingerprint(model), self.notes().get("fingerprint")
        if stored is None:
            self.note(fingerprint=mark)
        elif stored != mark:
            raise UserError(f"{self.path} was trained with another version of this network; train it again elsewhere")

    def config(self, data_dir=None):
        """Returns the `RunConfig` of the run, with another `data_dir` if one is given.

        Raises:
            UserError: there is no run in this folder, or its config.json is damaged.
        """
        if not self.config_path.is_file():
            raise UserError(f"{self.path} is no run folder (it has no config.json); train one with cdc-keras train")
        with _whole(self.config_path):
            config = RunConfig.from_json(self.config_path.read_text(encoding="utf-8"))
        return config if data_dir is None else dataclasses.replace(config, data_dir=data_dir)

    @property
    def finished(self):
        """Whether the run has trained all its epochs."""
        return self.notes().get("finished", False)

    @property
    def config_path(self):
        return self.path / "config.json"

    @property
    def checkpoints(self):
        return self.path / "checkpoints"

    @property
    def pictures(self):
        return self.path / "pictures"

    @property
    def extractor_weights(self):
        return self.path / "extractor.weights.h5"

    @property
    def extractor_config(self):
        """The config of a gated classifier's extractor, kept beside it so that the classifier needs no other folder."""
        return self.path / "extractor.json"

    @property
    def best_weights(self):
        return self.checkpoints / "best.weights.h5"

    def steps(self):
        """Returns the steps for which there are checkpoints, ascending."""
        names = (CHECKPOINT.fullmatch(path.name) for path in self.checkpoints.glob("*.h5"))
        return sorted(int(match[1]) for match in names if match)

    def checkpoint(self, step):
        """Returns the path of the checkpoint of `step`."""
        return self.checkpoints / f"step-{step:08d}.weights.h5"

    def load_checkpoint(self, model):
        """Loads the newest checkpoint and returns its step; 0, and nothing loaded, if there is none.

        Raises:
            UserError: it is damaged, saying how to go on from the one before it.
        """
        steps = self.steps()
        if not steps:
            return 0
        newest = self.checkpoint(steps[-1])
        before = f"; delete it to go on from {self.checkpoint(steps[-2]).name}" if len(steps) > 1 else ""
        load_weights(model, newest, otherwise=before)
        return steps[-1]

    def save_checkpoint(self, model, step, keep=2):
        """Writes the state after `step`, and removes all but the newest `keep` once it is safely there."""
        if not self.writes:
            return
        save_weights(model, self.checkpoint(step))
        for old in self.steps()[:-keep]:
            self.checkpoint(old).unlink(missing_ok=True)

    def note(self, **values):
        """Adds `values` to run.json."""
        if self.writes:
            write_text(self.path / "run.json", json.dumps({**self.notes(), **values}, indent=2) + "\n")

    def notes(self):
        """Returns run.json as a dict, empty if there is none yet."""
        path = self.path / "run.json"
        if not path.is_file():
            return {}
        with _whole(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def published(self):
        """Returns what is published of a run that has finished, without a path of the machine it ran on, as a dict."""
        notes = self.notes()
        kept = ("versions", "hardware", "commit", "started", "train_images", "hours")
        return {"settings": self.config().without_paths(), **{key: notes[key] for key in kept}}

    def rows(self):
        """Returns metrics.csv as a list of dicts of floats, one per finished epoch."""
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        with _whole(path), path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def write_rows(self, rows):
        """Writes metrics.csv."""
        if not self.writes:
            return
        lines = [",".join(rows[0])] + [",".join(f"{value:.7g}" for value in row.values()) for row in rows]
        write_text(self.path / "metrics.csv", "\n".join(lines) + "\n")


@contextlib.contextmanager
def _whole(path):
    """The context in which a file is read that this program wrote; what is no such file is told in a sentence."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); put a copy of it back, or train again elsewhere") from error


def flagfile(config):
    """Returns the text of a file for --flagfile that says what `config` does."""
    lines = [f"# {' '.join(sys.argv)}"]
    for name, value in dataclasses.asdict(config).items():
        if value is None:
            continue
        if isinstance(value, tuple):
            value = ",".join(map(str, value))
        lines.append(f"--{name}={str(value).lower() if isinstance(value, bool) else value}")
    return "\n".join(lines) + "\n"
