"""What is known of a released model: preset.json, read into a frozen `Record`."""

import dataclasses
import json
import math
import re

from cdc_keras.config import PATHS, RunConfig
from cdc_keras.errors import UserError
from cdc_keras.zoo.findings import Audit
from cdc_keras.zoo.strict import NAME, SHA256, demand, parse, read_json

INDEX, PRESET, CARD, FLAGS = "index.json", "preset.json", "README.md", "flags.txt"
DISENTANGLER, DECODER = "disentangler.weights.h5", "decoder.weights.h5"
FILE = re.compile(r"(?!.{101})[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")  # no separator and no ".."
LARGEST_IMAGE = 2048  # pixels a side; a network for larger ones would be built at any price
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
# How far a score may be from the card's when it is computed again, absolute: float32 convolutions of another library or
# processor round otherwise. Of shares 10 of 10,000 images, and at least 3, that lie between two categories; of losses a
# percent.
SHARES = ("top1", "top5", "discriminator_accuracy")
SHARE_TOLERANCE, RELATIVE_TOLERANCE, LEAST_TOLERANCE, UNDECIDED_IMAGES = 0.001, 0.01, 1e-5, 3
NOISY_SHARE_TOLERANCE, NOISY_RELATIVE_TOLERANCE = 0.03, 0.03  # where T has noise, and every pass another
KINDS = ("extractor", "classifier")


@dataclasses.dataclass(frozen=True)
class File:
    """Size and sha256 of a file."""

    bytes: int
    sha256: str

    def __post_init__(self):
        demand(self.bytes >= 0, "bytes", "0 or more", self.bytes)
        demand(SHA256.fullmatch(self.sha256), "sha256", "64 hexadecimal digits", self.sha256)


@dataclasses.dataclass(frozen=True)
class Weights(File):
    """The weights' file, its size and sha256."""

    file: str

    def __post_init__(self):
        super().__post_init__()
        _check_file_name(self.file)
        demand(self.file.endswith(".weights.h5"), "weights.file", "a .weights.h5", self.file)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What the model was trained on."""

    name: str
    train_images: int


@dataclasses.dataclass(frozen=True)
class Extractor:
    """The record of the extractor inside a gated classifier, and the sha256 of that extractor's weights' file."""

    name: str
    sha256: str

    def __post_init__(self):
        check_name(self.name)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        name, split: what was scored on which.
        value: of the weights in this record.
        tolerance: within which `value` comes out again, absolute.
        mean, std: over `n` runs, these weights' the first, and their sample standard deviation, None for one run.
        n, seeds: number of runs, and their seeds.
    """

    name: str
    split: str
    value: float
    tolerance: float
    mean: float
    std: float | None
    n: int
    seeds: tuple[int, ...]

    def __post_init__(self):
        demand(self.split in ("test", "validation"), "metrics.split", "test or validation", self.split)
        demand(self.n == len(self.seeds) > 0, "metrics.n", "the number of seeds", self.n)
        demand((self.std is None) == (self.n == 1), "metrics.std", "null for one run, else a number", self.std)
        demand(self.n > 1 or self.mean == self.value, "metrics.mean", "the value itself for one run", self.mean)
        most = _largest_tolerance(self.value)
        demand(0 < self.tolerance <= most, "metrics.tolerance", f"more than 0 and at most {most:g}", self.tolerance)


@dataclasses.dataclass(frozen=True)
class Golden:
    """What the model gives on `images` images of noise from NumPy's default_rng(seed), 2 * random(...) - 1.

    `values` are the outputs at the flat `indices`; all numbers hold to the absolute `tolerance`.
    """

    seed: int
    images: int
    shape: tuple[int, ...]
    mean: float
    std: float
    indices: tuple[int, ...]
    values: tuple[float, ...]
    tolerance: float

    def __post_init__(self):
        demand(self.seed >= 0, "golden.seed", "0 or more", self.seed)
        demand(0 < self.tolerance <= 0.01, "golden.tolerance", "more than 0 and at most 0.01", self.tolerance)
        demand(1 <= self.images <= 16, "golden.images", "1 to 16", self.images)
        size = math.prod(self.shape)
        demand(all(0 <= i < size for i in self.indices), "golden.indices", f"below {size}", self.indices)
        demand(len(self.values) == len(self.indices) > 0, "golden.values", "one per index", len(self.values))


@dataclasses.dataclass(frozen=True)
class Record:
    """All that is known of one released model; `from_json` reads it from preset.json.

    Attributes:
        name: of the record and of its folder.
        kind: "extractor" or "classifier".
        config: the run's resolved `RunConfig` as a dict, without `PATHS`; from it the network is built.
        class_names: of the categories.
        dataset: what it was trained on.
        preprocessing: how the images it takes are made, as text.
        weights: its weights' file.
        files: {name: `File`} of every other file of the folder but preset.json.
        parameters: number of weights, trainable or not.
        fingerprint: `weights.fingerprint` of the network.
        extractor: of a classifier gated by a context, else None.
        metrics: its scores; none of a context model that is a part of a classifier, as the scores are that one's.
        audit: of an extractor, how much of the category probes read from T, or None.
        paper: the paper's value as text, or None.
        commit: of the source that trained it, or None.
        versions: {package: version} it was trained with.
        hardware: it was trained on.
        hours: of training.
        epochs, seed: of training.
        golden: its output on a known input.
        licence: of the weights.
        created: date of the record, YYYY-MM-DD.

    Raises:
        UserError: a value is not what it is to be.
    """

    name: str
    kind: str
    config: dict
    class_names: tuple[str, ...]
    dataset: Dataset
    preprocessing: str
    weights: Weights
    files: dict[str, File]
    parameters: int
    fingerprint: str
    extractor: Extractor | None
    metrics: tuple[Metric, ...]
    audit: Audit | None
    paper: str | None
    commit: str | None
    versions: dict[str, str]
    hardware: str
    hours: float
    epochs: int
    seed: int
    golden: Golden
    licence: str
    created: str

    def __post_init__(self):
        check_name(self.name)
        demand(self.kind in KINDS, "kind", " or ".join(KINDS), self.kind)
        for file in self.files:
            _check_file_name(file)
        demand(self.weights.file not in self.files, "files", "without the weights' file", self.weights.file)
        config = self.run_config()
        demand(DATE.fullmatch(self.created), "created", "a date, YYYY-MM-DD", self.created)
        demand(config.task == self.kind, "config.task", self.kind, config.task)
        size = config.image_size
        demand(size is not None and size <= LARGEST_IMAGE, "config.image_size", f"at most {LARGEST_IMAGE}", size)
        demand(self.parameters > 0, "parameters", "more than 0", self.parameters)
        demand(self.audit is None or self.kind == "extractor", "audit", "null but for an extractor", self.kind)
        needs = config.gated and config.gate_attention
        demand(needs == (self.extractor is not None), "extractor", "null unless the gate has one", self.extractor)

    def run_config(self):
        """Returns the `RunConfig`; settings that came after the record have their default, as they had then.

        In the place of the extractor's path stands the name of its record.
        """
        fields = {field.name: field for field in dataclasses.fields(RunConfig) if field.name not in PATHS}
        demand(not (unknown := sorted(set(self.config) - set(fields))), "config", "settings of a run", unknown)
        values = {key: parse(_type(fields[key]), value, f"config.{key}") for key, value in self.config.items()}
        return RunConfig(**values, extractor=self.extractor and f"zoo record {self.extractor.name}")

    @property
    def must_hold(self):
        """The names of the files that must be among `files`."""
        return {CARD, FLAGS, DISENTANGLER, DECODER} if self.has_disentangler else {CARD, FLAGS}

    @property
    def has_disentangler(self):
        """Whether it is of an extractor that was trained in an extraction network, all of which is kept."""
        return self.kind == "extractor" and not self.run_config().classifies

    def to_json(self):
        """Returns the text of preset.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text, path):
        """Returns the `Record` that preset.json says.

        Args:
            text: its content, text or bytes.
            path: for messages.

        Raises:
            UserError: naming the key that is unknown, missing, of another type or out of its bounds.
        """
        try:
            return parse(cls, read_json(text, path), "")
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def check_name(name):
    """Raises UserError unless `name` is one that a record may have."""
    if not NAME.fullmatch(name) or name == INDEX:
        raise UserError(f"a record's name is of a-z, 0-9, '_', '.' and '-', not {name!r}; choose another")


def tolerance(name, value, *, images, noisy):
    """Returns how far a score may be from its value when it is computed again.

    Args:
        name, value: of the score.
        images: number of images that were scored.
        noisy: whether it depends on a T with noise.
    """
    if name in SHARES:
        share = max(NOISY_SHARE_TOLERANCE if noisy else SHARE_TOLERANCE, UNDECIDED_IMAGES / images)
        return min(share, _largest_tolerance(value))
    return max((NOISY_RELATIVE_TOLERANCE if noisy else RELATIVE_TOLERANCE) * abs(value), LEAST_TOLERANCE)


def _largest_tolerance(value):
    """Returns the tolerance beyond which a score would say nothing."""
    return max(0.1 * abs(value), 0.01)


def wrong_scores(record, split, scores):
    """Returns which scores of a record differ from those computed again on a split, {name: value}, as sentences."""
    return [
        f"{record.name}: {metric.name} on {split} comes out as {scores.get(metric.name, math.nan):.6g}, and {PRESET} "
        f"says {metric.value:.6g} to within {metric.tolerance:.2g}"
        for metric in record.metrics
        if metric.split == split and not abs(scores.get(metric.name, math.nan) - metric.value) <= metric.tolerance
    ]


def _type(field):
    """Returns the type of a field of `RunConfig` as an annotation says it."""
    kind = field.type
    if kind is tuple:
        return tuple[float, ...] if field.default else tuple[str, ...]
    return kind | None if field.default is None else kind


def _check_file_name(file):
    demand(FILE.fullmatch(file) and file != PRESET, "files", "plain names of files in the record's folder", file)
