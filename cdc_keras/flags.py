"""The flags of every command: defined, grouped and parsed in pure Python, so that --help needs no backend."""

import dataclasses
import difflib
import functools
import pathlib
import re

from absl import flags

from cdc_keras import choices
from cdc_keras.config import RunConfig
from cdc_keras.errors import UsageError, UserError
from cdc_keras.paths import expanded

# What the flags of a group feed, and for whom they are; absl files a flag under its group as under a module.
HEADINGS = {
    "flags": "flags",
    "run": "run: for every task.",
    "data": "data: for every task.",
    "training": "training: for every task.",
    "extractor": "extractor: for --task=extractor. T is the context, a feature map that it learns to make of an image. "
    "The networks E1, E2 and G1 make it, and a discriminator tries to read the category from it.",
    "classifier": "classifier: for --task=classifier.",
    "gate": "gate: for a classifier that reads an extractor's T. Its parts are a residual unit R, a map M of positions "
    "and a weight C for every channel.",
    "teacher": "teacher: for a classifier that also imitates a trained one.",
    "devices": "devices: for accelerators and several machines.",
    "experiments": "for experiments: variants that the paper compares, and our own studies. Leave them out otherwise.",
}
_PACKAGE = pathlib.Path(__file__).resolve().parent
# The flagfiles: inside the package if installed (pyproject.toml), beside it in a checkout.
CONFIGS = next((path for path in (_PACKAGE / "configs",) if path.is_dir()), _PACKAGE.parent / "configs")
GROUPS = """score the images in groups too, by columns such as bird,place: of labels.csv in the data folder, features \
of a TFDS set, or factors of shapes"""
BACKGROUNDS = "score the objects on other backgrounds too, where their masks are known"


def train(values):
    """Defines `--run_dir` and one flag per field of `RunConfig` in `values`, an `absl.flags.FlagValues`."""
    _define(values, "run", "run_dir", None, "folder to write: settings, metrics, checkpoints and pictures")
    for field in dataclasses.fields(RunConfig):
        allowed = {name: field.metadata[name] for name in ("choices", "low", "high")}
        # Nobody should get a task by default: the wrong one trains for days.
        default = None if field.name == "task" else field.default
        _define(
            values, field.metadata["group"], field.name, default, field.metadata["help"], kind=field.type, **allowed
        )


def evaluate(values):
    """Defines the flags of the command in `values`; so do the functions below."""
    add = functools.partial(_define, values, "flags")
    add("model", None, "model to score: runs/... or zoo:<name>, whose scores are shown beside those on its card")
    add("split", "test", "images to score; choose settings on validation", choices=choices.SPLITS)
    add("weights", "last", "newest checkpoint, or best epoch on validation; of a run", choices=choices.WEIGHTS)
    add("data_dir", None, "where the data are now, if not where they were in training")
    add("plain", None, "run of the plain counterpart of a gated classifier, drawn beside it")
    add("groups", [], GROUPS, kind=tuple)
    add("backgrounds", False, BACKGROUNDS, kind=bool)
    add("out", None, "folder for scores and pictures, if not that of the run")


def audit(values):
    add = functools.partial(_define, values, "flags")
    add("model", None, "extractor to audit: runs/... or zoo:<name>")
    add("rivals", [], "other extractors to probe beside it, as name=runs/... or name=zoo:<name>", kind=tuple)
    add("classifier", None, "classifier that judges what is decoded under another category: runs/... or zoo:<name>")
    add("data_dir", None, "where the data are now, if not where they were in training")
    add(
        "out",
        None,
        "folder for audit.json, audit.md and audit.png; if not given, the run folder, or audits/<name> of zoo:<name>",
    )
    add("limit", 20_000, "use at most so many test images, and as many others for probes", kind=int, low=1)
    add("seed", 0, "decides which images the probes learn from, and their initial weights", kind=int, low=0)


def export(values):
    add = functools.partial(_define, values, "flags")
    add("model", None, "model to export: runs/... or zoo:<name>")
    add("out", None, "folder to write to; its name is the name that TensorFlow Serving knows the model by")
    text = "what to write; litert_int8 computes in 8 bits, whose ranges it learns from validation images"
    add("format", "saved_model", text, choices=choices.EXPORT_FORMATS)
    add("data_dir", None, "for litert_int8: where the data are now, if not where they were in training")
    add("version", None, "version number; if not given, one more than the newest in --out", kind=int, low=1)


def report(values):
    add = functools.partial(_define, values, "flags")
    add("model", None, "run to report on: runs/...; or, with --images, a classifier: runs/... or zoo:<name>")
    add(
        "plain",
        None,
        "plain counterpart of a gated classifier, drawn beside it: runs/..., with --images also zoo:<name>",
    )
    add("data_dir", None, "for a report: where the data are now, if not where they were in training")
    add("groups", [], f"for a report: {GROUPS}", kind=tuple)
    add("backgrounds", False, f"for a report: {BACKGROUNDS}", kind=bool)
    text = """draw what the classifier sees in image files, separated by commas (a name with a comma in double quotes: \
--images='"a, b.jpg",c.jpg'), or in those of a folder"""
    add("images", [], text, kind=tuple)
    add(
        "saved_model", None, "with --images: a version of an exported classifier, models/<name>/<version>, as the model"
    )
    add("site", None, "with --images: gated layer to look into; if not given, the shallowest")
    add("out", None, "folder for the page, if not that of the run; with --images: PNG to write, else strip.png")
    add("count", 8, "with --images: at most so many", kind=int, low=1)


def tables(values):
    add = functools.partial(_define, values, "flags")
    flags.DEFINE_multi_integer(
        "table", None, "table of the paper, 1 to 6; give it again for more", 1, 6, values, module_name="flags"
    )
    add("dataset", None, "data set; if not given, the table's first (paper: cifar10 and cifar100 in Tables 1 to 3)")
    add("data_dir", None, "where the data are; if not given, the folder of TensorFlow Datasets")
    add("seeds", 3, "runs of every row, with seeds 0, 1, ... (paper: 3)", kind=int, low=1)
    text = "epochs of every row, in place of its flagfile's (paper: CIFAR 200, ImageNet32 40, ImageNet 100)"
    add("epochs", None, text, kind=int, low=1)
    add("rows", [], "only these rows, as ours or vgg13+ours; if not given, all", kind=tuple)
    add("networks", [], "networks in place of the table's, such as vgg13_slim,resnet20", kind=tuple)
    add("extractors", "train", "train the extractors, or take the zoo's where it has them", choices=choices.EXTRACTORS)
    add("runs_dir", "runs/tables", "folder for the runs, with one below it for each data set")
    add("out", None, "folder for the tables and rows.json; if not given, runs_dir/<dataset>")
    text = "runs at a time; if not given, as many as CPU cores, at most 8, or one on each GPU"
    add("at_once", None, text, kind=int, low=1)
    add = functools.partial(_define, values, "experiments")
    add("classifier_flags", None, "flagfile with the settings of all rows; configs/paper/<dataset>.flags if not given")
    text = "flagfile of the extractors; configs/paper/<dataset>_extractor.flags if not given"
    add("extractor_flags", None, text)
    text = "test images scored under each of 75 corruptions; 0 leaves corruptions out"
    add("corrupted_images", 10_000, text, kind=int, low=0)
    text = "try every row with a small network, few images and one epoch; the numbers mean nothing"
    add("smoke", False, text, kind=bool)


def zoo(values):
    add = functools.partial(_define, values, "flags")
    add("names", [], "records to verify; if not given, all", kind=tuple)
    add("numbers", True, "also compute scores and audits again, which takes minutes to hours", kind=bool)
    add("data_dir", None, "where the data are; if not given, the folder of TensorFlow Datasets")


def demo(values):
    _define(values, "flags", "out", "runs/demo", "folder for the demo's runs and pictures")


def complexity(values):
    _define(values, "flags", "model", None, "model to count, part by part: runs/... or zoo:<name>; else the paper's")


def _define(values, group, name, default, text, *, kind=str, choices=(), low=None, high=None):  # noqa: A002
    place = {"flag_values": values, "module_name": group}
    if choices:
        flags.DEFINE_enum(name, default, choices, text, **place)
    elif kind is bool:
        flags.DEFINE_bool(name, default, text, **place)
    elif kind is int:
        flags.DEFINE_integer(name, default, text, low, high, **place)
    elif kind is float:
        flags.DEFINE_float(name, default, text, low, high, **place)
    elif kind is tuple:
        flags.DEFINE_list(name, list(default), text, **place)
    else:
        flags.DEFINE_string(name, default, text, **place)


def parse(define, arguments):
    """Returns the `absl.flags.FlagValues` that a function above defines, with the values of the arguments.

    Args:
        define: one of the functions above.
        arguments: texts such as "--epochs=3"; "--flagfile=<path>" stands for the lines of that file.

    Raises:
        UsageError: naming the flag that is wrong.
    """
    values = flags.FlagValues()
    define(values)
    arguments = _expanded(arguments)
    try:
        stray = values(["", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(values), n=1)
        hint = f"; did you mean --{near[0]}?" if near else "; --help lists all"
        raise UsageError(f"there is no flag --{error.flagname}{hint}") from None
    except flags.IllegalFlagValueError as error:
        name, value = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL).groups()
        raise UsageError(f"--{name} is {allowed(values[name])}, not {value!r}") from None
    except (flags.Error, ValueError) as error:  # a value that is missing, or one after --no<name>
        raise UsageError(f"{error}; flags are given as --name=value") from None
    if stray:
        raise UsageError(f"flags are given as --name=value; what is {stray[0]!r}?")
    return values


def allowed(flag):
    """Returns what values an absl flag takes, in words."""
    if hasattr(flag.parser, "enum_values"):
        return f"one of {', '.join(flag.parser.enum_values)}"
    if flag.boolean:
        return "true or false"
    kind = {"int": "a whole number", "float": "a number"}.get(flag.flag_type().removeprefix("multi "), "a text")
    limits = {
        "at least": getattr(flag.parser, "lower_bound", None),
        "at most": getattr(flag.parser, "upper_bound", None),
    }
    bounds = [f"{words} {limit:g}" for words, limit in limits.items() if limit is not None]
    return f"{kind} of {' and '.join(bounds)}" if bounds else kind


def config_from_flags(values):
    """Returns the `RunConfig` that the parsed flags of `train` say."""
    return RunConfig(**{field.name: _value(field, values[field.name].value) for field in dataclasses.fields(RunConfig)})


def _value(field, value):
    """Returns the value of a flag as `RunConfig` takes it: absl's lists are lists of text."""
    if not isinstance(value, list):
        return value
    if field.default and isinstance(field.default[0], float):
        try:
            return tuple(map(float, value))
        except ValueError:
            raise UserError(f"{field.name} is a list of numbers, not {','.join(value)}") from None
    return tuple(value)


def _expanded(arguments, inside=()):
    """Returns the arguments with the lines of every --flagfile in its place; `inside` are the files around these."""
    expanded, arguments = [], iter(arguments)
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if name.lstrip("-") != "flagfile" or not name.startswith("-"):
            expanded.append(argument)
            continue
        path = path if equals else next(arguments, "")
        if path in inside:
            raise UsageError(f"the flagfile {path} names itself; remove that line")
        expanded += _expanded(_lines(path), (*inside, path))
    return expanded


def _lines(path):
    """Returns the arguments that a flagfile holds, one a line, without comments.

    A path that begins with configs/ and is not there is one of the flagfiles that came with the package.
    """
    file = expanded(path)
    if not file.is_file() and file.parts[:1] == ("configs",):
        file = CONFIGS.joinpath(*file.parts[1:])
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no flagfile {path}; name one that is there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the flagfile {path} is no text: {error}; name another") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)(#|//).*", "", line).strip()
        if line and not line.startswith("-"):
            raise UsageError(f"line {number} of the flagfile {path} is not --name=value: {line!r}")
        lines += [line] if line else []
    return lines
