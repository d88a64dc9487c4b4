"""What an audit found, as it stands in audit.json, in the zoo's records and in their tables."""

import dataclasses
import re

from cdc_keras.errors import UserError
from cdc_keras.markdown import markdown_table

WORDS = re.compile(r"[a-z0-9][a-z0-9_.-]*( (swap|reconstruction))?")
SHA256 = re.compile(r"[0-9a-f]{64}")
READERS = {
    "linear": "linear",
    "knn": "k-NN",
    "mlp": "MLP",
    "conv": "conv",
    "discriminator": "its own D",
    "classifier": "the classifier",
}
PLAYERS = ("discriminator", "classifier")  # of `READERS`; the others are probes
SOURCES = {
    "context": "T",
    "pixels": "pixels",
    "shuffled": "T, training labels shuffled",
    "erased": "T, category erased (LEACE on the probes' images)",
    "erased-before": "T, category erased (LEACE on the extractor's)",
    "images": "the images",
}
TARGETS = {"category": "the category", "condition": "the condition swapped in"}
DECODED = {"": "", "swap": ", decoded under another category", "reconstruction": ", decoded under its own"}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How often one reader takes a target from a source: shares in [0, 1] of the scored images.

    Attributes:
        target: "category", a known factor, or "condition", the category that T was decoded under.
        source: one of `SOURCES` or the name of a rival; with " swap" or " reconstruction", what G2 makes of it.
        reader: one of `READERS`.
        accuracy, low, high: the share and its 95% bootstrap interval.
        chance: of always answering the most frequent.

    Raises:
        UserError: a value is not what it is to be.
    """

    target: str
    source: str
    reader: str
    accuracy: float
    low: float
    high: float
    chance: float

    def __post_init__(self):
        _demand(WORDS.fullmatch(self.target), "target", "a plain word", self.target)
        _demand(WORDS.fullmatch(self.source), "source", "a plain word", self.source)
        _demand(self.reader in READERS, "reader", f"one of {', '.join(READERS)}", self.reader)
        _demand(0 <= self.chance <= 1, "chance", "in [0, 1]", self.chance)
        _demand(0 <= self.low <= self.accuracy <= self.high <= 1, "accuracy", "within its interval", self.accuracy)


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far the numbers of an audit may be from these when it is made again, elsewhere; shares of 1.

    Everything is computed in float32, which another library or processor rounds otherwise. Training a probe multiplies
    that; D and the classifier only change their mind where two categories are as likely.

    Attributes:
        probes: of what a fresh probe reads.
        players: of what D or the classifier reads.
        erased: of the shares of T's variance that an erasure changes.
    """

    probes: float = 0.02
    players: float = 0.002  # two of 1,000 images
    erased: float = 0.005

    def of(self, reading):
        """Returns the tolerance of the accuracy of a `Reading`; the ends of its interval hold to twice as much."""
        return self.players if reading.reader in PLAYERS else self.probes


@dataclasses.dataclass(frozen=True)
class Audit:
    """The audit of one extractor, and what it takes to make it again.

    Attributes:
        seed: decided the halves and everything random in the probes.
        limit: at most so many test images were used.
        rivals: {name in the table: sha256 of the weights' file} of the extractors beside it.
        classifier: sha256 of the weights' file of the classifier that judged what was decoded, None without.
        probe_images, scored_images: size of the half that probes were trained on, and of the one they were scored on.
        erased: {source: mean squared change of standardised T by that erasure, as a share of its variance}.
        readings: what was read.
        tolerance: how well all that comes out again.
    """

    seed: int
    limit: int
    rivals: dict[str, str]
    classifier: str | None
    probe_images: int
    scored_images: int
    erased: dict[str, float]
    readings: tuple[Reading, ...]
    tolerance: Tolerance = Tolerance()

    @property
    def findings(self):
        return self.readings

    def __post_init__(self):
        _demand(self.limit > 0, "limit", "more than 0", self.limit)
        for name, sha256 in self.rivals.items():
            _demand(WORDS.fullmatch(name) and SHA256.fullmatch(sha256), f"rivals.{name}", "a sha256", sha256)
        _demand(not self.classifier or SHA256.fullmatch(self.classifier), "classifier", "a sha256", self.classifier)
        _demand(self.probe_images > 0 and self.scored_images > 0, "images", "more than 0 in each half", "fewer")
        for source, share in self.erased.items():
            _demand(source in SOURCES and share >= 0, f"erased.{source}", "0 or more of a source", share)


def headline(audit):
    """Returns the finding in one sentence, "" for an audit without a probe of T."""
    strongest = {}
    for name in ("context", "pixels"):
        readings = [r for r in audit.readings if (r.target, r.source) == ("category", name) and r.reader not in PLAYERS]
        strongest[name] = max(readings, key=lambda r: r.accuracy, default=None)
    context, pixels = strongest.values()
    if context is None:
        return ""
    beside = "" if pixels is None else f"; from the pixels it is {pixels.accuracy:.1%}"
    return (
        f"The strongest fresh probe reads the category from T for {context.accuracy:.1%} of the images it never saw"
        f"{beside}, and by chance it would be {context.chance:.1%}."
    )


def introduction(audit):
    """Returns how the numbers of an `Audit` were measured."""
    return (
        f"Fresh probes were trained on {audit.probe_images} test images and scored on {audit.scored_images} others; "
        "extractor and discriminator saw neither. In brackets the 95% bootstrap interval over the scored images."
    )


def remarks(audit):
    """Returns what belongs to the table of an `Audit`, as sentences of plain text."""
    return [
        "LEACE on the probes' images leaves a linear probe nothing to learn from, by construction: the floor. On the "
        "extractor's images, it was fitted on what the discriminator saw, and the rest is what new images still show.",
        *(f"{words(source)}: changes {share:.1%} of T's variance." for source, share in audit.erased.items()),
        *(f"{words(name)}: of the weights with sha256 `{sha256}`." for name, sha256 in audit.rivals.items()),
        *([f"The classifier: of the weights with sha256 `{audit.classifier}`."] if audit.classifier else []),
        f"Made again, with seed {audit.seed} and at most {audit.limit} images, what probes read holds to "
        f"{audit.tolerance.probes:.1%}, as training them multiplies differences of rounding; what D and the classifier "
        f"read to {audit.tolerance.players:.1%}; what an erasure changes to {audit.tolerance.erased:.1%}.",
    ]


def described(audit):
    """Returns the table of an `Audit` and what it means, as lines of Markdown."""
    rest = [f"* {sentence}" for sentence in remarks(audit)]
    return [introduction(audit), "", *markdown_table(*table(audit.findings)).splitlines(), "", *rest]


def table(findings):
    """Returns (head, rows) of a table of findings: a row for each target and source, a column for each reader."""
    readers = [reader for reader in READERS if any(x.reader == reader for x in findings)]
    head, rows = ["read", "from", *(READERS[reader] for reader in readers), "chance"], []
    for target, source in dict.fromkeys((x.target, x.source) for x in findings):
        of_row = {x.reader: x for x in findings if (x.target, x.source) == (target, source)}
        cells = [_cell(of_row[reader]) if reader in of_row else "" for reader in readers]
        chance = f"{next(iter(of_row.values())).chance:.1%}"
        rows.append([TARGETS.get(target, target), words(source), *cells, chance])
    return head, rows


def words(source):
    """Returns what a person reads for the `source` of a `Reading`."""
    name, _, decoded = source.partition(" ")
    return SOURCES.get(name, f"T of {name}") + DECODED[decoded]


def _cell(reading):
    return f"{reading.accuracy:.1%} ({100 * reading.low:.1f} to {100 * reading.high:.1f})"


def _demand(holds, key, expected, came):
    if not holds:
        raise UserError(f"audit.{key} is to be {expected}, but {str(came)[:200]!r} came; get the record again")
