"""The commands of cdc-keras: one table of them, and one way to run each.

`cdc-keras <command>` is `python -m cdc_keras <command>`. The body of a command is `main` of the module
`cdc_keras.commands.<command>`, which imports the backend. It is imported once the flags are parsed, so that help and
mistakes are answered at once.
"""

import contextlib
import dataclasses
import difflib
import importlib
import logging
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable

from absl import logging as absl_logging

from cdc_keras import flags
from cdc_keras.backend import start_keras
from cdc_keras.data import class_folders
from cdc_keras.errors import UsageError, UserError


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: what it does, in one line.
        define: function of `flags` that defines its flags.
        example: its flags in an example.
        needed: names of the flags that must be given.
        resumes: whether the same command goes on where it was stopped.
        check: function of the parsed flags that raises `UserError` for what is wrong, before the backend starts.
    """

    summary: str
    define: Callable
    example: str = ""
    needed: tuple[str, ...] = ()
    resumes: bool = False
    check: Callable = lambda values: None


def check_training(values):
    """Raises `UserError` for parsed flags of `train` that say no run, or a folder that is no data set."""
    config = flags.config_from_flags(values)
    if config.dataset == "folder" and config.data_dir is not None:
        class_folders.listing(config.data_dir)


COMMANDS = {
    "train": Command(
        "Trains an extractor, or a classifier with or without a gate; goes on with a run that was stopped.",
        flags.train,
        "--flagfile=configs/cifar100_extractor.flags --run_dir=runs/cifar100_extractor",
        needed=("task", "run_dir"),
        resumes=True,
        check=check_training,
    ),
    "evaluate": Command(
        "Scores a trained model on test or validation images.",
        flags.evaluate,
        "--model=runs/resnet20_gated",
        needed=("model",),
    ),
    "audit": Command(
        "Measures how much of the category can still be read from an extractor's context T.",
        flags.audit,
        "--model=runs/cifar100_extractor",
        needed=("model",),
    ),
    "export": Command(
        "Writes a trained model as a SavedModel, ONNX or LiteRT, to be served without Keras.",
        flags.export,
        "--model=zoo:cifar100_resnet20_gated --out=models/cifar100_resnet20_gated",
        needed=("model", "out"),
    ),
    "report": Command(
        "Writes report.html of a run; with --images, draws where a classifier looks in your images.",
        flags.report,
        "--model=runs/resnet20_gated --plain=runs/resnet20",
    ),
    "tables": Command(
        "Trains and scores every row of a table of the paper, and writes the table.",
        flags.tables,
        "--table=2 --dataset=cifar100",
        resumes=True,
    ),
    "zoo": Command("Lists the released models and verifies them.", flags.zoo, "--numbers=false"),
    "demo": Command(
        "Shows the whole method in a few minutes, on images that it draws itself.",
        flags.demo,
        "--out=runs/demo",
        resumes=True,
    ),
    "complexity": Command(
        "Counts parameters and multiply-adds, of a trained model or of the paper's networks.",
        flags.complexity,
        "--model=zoo:cifar100_resnet20_gated",
    ),
}


@contextlib.contextmanager
def _printing():
    """The context of what is printed, of which a terminal need not know every letter, nor `| head` read all."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(141)  # as of a process that SIGPIPE ends


@_printing()
def main(arguments=None):
    """Runs the command that the arguments name; by default those of this process.

    Raises:
        SystemExit: as for `run`.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(overview())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        _exit(f"error: there is no command {name!r}; {hint} {', '.join(COMMANDS)}", 2)
    run(name, rest)


@_printing()
def run(name, arguments):
    """Parses the flags of a command and runs it.

    Args:
        name: one of `COMMANDS`.
        arguments: its flags, as texts.

    Raises:
        SystemExit: with status 1 after a `UserError`, 2 after a `UsageError`, 130 when it was stopped; one sentence on
            standard error says why.
    """
    command = COMMANDS[name]
    if {"--help", "-h", "--helpfull"} & set(arguments):
        print(help_text(name))
        return
    with messages(stopped="stopped; the same command goes on from there" if command.resumes else "stopped"):
        values = flags.parse(command.define, arguments)
        if missing := [f"--{flag}" for flag in command.needed if values[flag].value is None]:
            raise UsageError(f"give {' and '.join(missing)}; for example: cdc-keras {name} {command.example}")
        command.check(values)
        quiet_libraries()
        os.environ["KERAS_HOME"] = os.devnull  # a command reads no keras.json: that is of all projects together
        with quiet_imports():
            start_keras(lean=True)
            body = importlib.import_module(f"cdc_keras.commands.{name}")
        body.main(values)


@contextlib.contextmanager
def messages(stopped="stopped"):
    """The context in which errors meant for people, and Ctrl-C, end the program with a sentence and a status."""
    try:
        yield
    except UsageError as error:
        _exit(f"error: {error}", 2)
    except UserError as error:
        _exit(f"error: {error}", 1)
    except KeyboardInterrupt:
        _exit(stopped, 130)
    except BrokenPipeError:
        raise
    except OSError as error:  # of the system, whatever was being done: a full disk, a folder of somebody else
        if error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _exit(f"error: {place}{error.strerror}; free some space, or choose another place", 1)


def _exit(sentence, status):
    print(sentence, file=sys.stderr)
    sys.exit(status)


def quiet_libraries():
    """Leaves the terminal to this program: notes of TensorFlow, TFDS and Matplotlib are not shown.

    To be called before TensorFlow is imported. TF_CPP_MIN_LOG_LEVEL=0 in the environment shows TensorFlow's again.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl_logging.set_verbosity(absl_logging.ERROR)
    for library in ("tensorflow", "matplotlib"):
        logging.getLogger(library).setLevel(logging.ERROR)


@contextlib.contextmanager
def quiet_imports():
    """The context in which TensorFlow is imported without a word, unless the import fails.

    Its libraries write notes on oneDNN and CUDA to the standard error of the process before any log level counts.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def overview():
    """Returns the list of the commands."""
    width = max(map(len, COMMANDS)) + 4
    lines = [_wrapped(f"  {name:{width - 2}}{command.summary}", width) for name, command in COMMANDS.items()]
    ends = "cdc-keras <command> --help lists the flags of a command. docs/card.md has all of it on one page."
    return "\n".join(["cdc-keras <command> --name=value ...", "", *lines, "", _wrapped(ends)])


def help_text(name):
    """Returns the help of a command: its flags in groups, each with its values, its default and its meaning."""
    command = COMMANDS[name]
    values = flags.flags.FlagValues()
    command.define(values)
    groups = values.flags_by_module_dict()
    lines = [_wrapped(command.summary), "", "For example:", f"  cdc-keras {name} {command.example}", ""]
    lines += [_wrapped("Flags are --name=value; --flagfile=<path> reads them from a file, and later ones win.")]
    for group, heading in flags.HEADINGS.items():
        if group in groups:
            lines += ["", _wrapped(heading)]
            lines += [line for flag in groups[group] for line in _flag_lines(flag, flag.name in command.needed)]
    return "\n".join(lines)


def _flag_lines(flag, needed):
    default = ",".join(map(str, flag.default)) if isinstance(flag.default, (list, tuple)) else flag.default
    if flag.boolean:
        default = str(default).lower()
    state = "must be given" if needed else None if default in (None, "") else f"default {default}"
    facts = [None if flags.allowed(flag) == "a text" else flags.allowed(flag), state]
    facts = "; ".join(fact for fact in facts if fact)
    head = f"  --{flag.name}" + (f"  ({facts})" if facts else "")
    text = re.sub(r"^<\S+>: |;\s+repeat this option.*", "", flag.help)  # what absl adds
    return [_wrapped(head, 8), _wrapped(f"      {text}", 6)]


def _wrapped(text, indent=0):
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)
