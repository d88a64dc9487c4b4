"""What an audit found, as it stands in audit.json, in the zoo's records and in their tables."""

import dataclasses
import re

from cdc_keras.markdown import markdown_table
from cdc_keras.zoo.strict import NAME, SHA256, demand

DECODED_NAME = re.compile(NAME.pattern + r"( (swap|reconstruction))?")
READERS = {
    "linear": "linear",
    "knn": "k-NN",
    "mlp": "MLP",
    "conv": "conv",
    "discriminator": "its own D",
    "classifier": "the classifier",
}
PLAYERS = ("discriminator", "classifier")  # of `READERS`; the others are probes
FEATURES = {
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
class Finding:
    """How often one reader tells a target from features: shares in [0, 1] of the scored images.

    Attributes:
        target: "category", a known factor, or "condition", the category that T was decoded under.
        features: one of `FEATURES` or the name of a rival; with " swap" or " reconstruction", what G2 makes of it.
        reader: one of `READERS`.
        accuracy, low, high: the share and its 95% bootstrap interval.
        chance: the share of an answer that is always the most frequent one.

    Raises:
        UserError: a value is not what it is to be.
    """

    target: str
    features: str
    reader: str
    accuracy: float
    low: float
    high: float
    chance: float

    def __post_init__(self):
        demand(NAME.fullmatch(self.target), "audit.target", "a plain word", self.target)
        demand(DECODED_NAME.fullmatch(self.features), "audit.features", "a plain word", self.features)
        demand(self.reader in READERS, "audit.reader", f"one of {', '.join(READERS)}", self.reader)
        demand(0 <= self.chance <= 1, "audit.chance", "in [0, 1]", self.chance)
        within = 0 <= self.low <= self.accuracy <= self.high <= 1
        demand(within, "audit.accuracy", "within its interval", self.accuracy)

    @property
    def key(self):
        """The (target, features, reader) that tell one finding of an audit from another."""
        return self.target, self.features, self.reader


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far the numbers of an audit may be from these when it is made again, elsewhere; shares of 1.

    Everything is computed in float32, which another library or processor rounds otherwise. Training a probe multiplies
    that. D and the classifier only change their mind where two categories are as likely.

    Attributes:
        probes: of the accuracy of a fresh probe.
        players: of the accuracy of D or of the classifier.
        erased: of the shares of T's variance that an erasure changes.
    """

    probes: float = 0.02
    players: float = 0.002  # two of 1,000 images
    erased: float = 0.005

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            demand(0 < value <= 0.1, f"audit.tolerance.{name}", "more than 0 and at most 0.1", value)

    def of(self, finding):
        """Returns the tolerance of the accuracy of a `Finding`; the ends of its interval hold to twice as much."""
        return self.players if finding.reader in PLAYERS else self.probes


NOISY = Tolerance(probes=0.05, players=0.02)  # where T has noise, and every pass another


@dataclasses.dataclass(frozen=True)
class Audit:
    """The audit of one extractor, and what it takes to make it again.

    Attributes:
        seed: decided which images were used, and everything random in the probes.
        limit: at most so many test images, and fresh scenes of `shapes`, were used.
        rivals: {name in the table: sha256 of the weights' file} of the extractors beside it.
        classifier: sha256 of the weights' file of the classifier that judged what was decoded, None without.
        probe_images, scored_images: how many images probes were trained on, and how many they were scored on.
        erased: {features: mean squared change of standardised T by that erasure, as a share of its variance}.
        findings: all of them.
        tolerance: how well all that comes out again.
    """

    seed: int
    limit: int
    rivals: dict[str, str]
    classifier: str | None
    probe_images: int
    scored_images: int
    erased: dict[str, float]
    findings: tuple[Finding, ...]
    tolerance: Tolerance = Tolerance()

    def __post_init__(self):
        demand(self.seed >= 0, "audit.seed", "0 or more", self.seed)
        demand(self.limit > 0, "audit.limit", "more than 0", self.limit)
        for name, sha256 in self.rivals.items():
            demand(NAME.fullmatch(name) and SHA256.fullmatch(sha256), f"audit.rivals.{name}", "a sha256", sha256)
        demand(
            not self.classifier or SHA256.fullmatch(self.classifier), "audit.classifier", "a sha256", self.classifier
        )
        demand(self.probe_images > 0 and self.scored_images > 0, "audit.images", "more than 0 in each half", "fewer")
        for features, share in self.erased.items():
            demand(features in FEATURES and share >= 0, f"audit.erased.{features}", "0 or more of T's variance", share)

    def strongest(self, features):
        """Returns the `Finding` of the fresh probe that reads most of the category from features, None without any."""
        probes = [
            x for x in self.findings if (x.target, x.features) == ("category", features) and x.reader not in PLAYERS
        ]
        return max(probes, key=lambda x: x.accuracy, default=None)


def headline(audit):
    """Returns the finding in one sentence, "" for an audit without a probe of T."""
    context, pixels = audit.strongest("context"), audit.strongest("pixels")
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
        f"Fresh probes were trained on {audit.probe_images} images and scored on {audit.scored_images} others. "
        "Extractor and discriminator saw neither. In brackets stands the 95% bootstrap interval over the scored images."
    )


def table(findings):
    """Returns (head, rows) of a table of findings: a row for each target and features, a column for each reader."""
    readers = [reader for reader in READERS if any(x.reader == reader for x in findings)]
    head, rows = ["target", "read from", *(READERS[reader] for reader in readers), "chance"], []
    for target, features in dict.fromkeys((x.target, x.features) for x in findings):
        of_row = {x.reader: x for x in findings if (x.target, x.features) == (target, features)}
        cells = [_cell(of_row[reader]) if reader in of_row else "" for reader in readers]
        chance = f"{next(iter(of_row.values())).chance:.1%}"
        rows.append([TARGETS.get(target, target), features_title(features), *cells, chance])
    return head, rows


def remarks(audit):
    """Returns what belongs to the table of an `Audit`, as sentences of plain text."""
    sentences = []
    if audit.erased:
        sentences.append(
            "LEACE, fitted on the probes' images, leaves a linear probe nothing to learn from, by construction: that "
            "row is the floor. Fitted on the images that the extractor and its discriminator saw, it shows how much "
            "new images still hold."
        )
    for features, share in audit.erased.items():
        sentences.append(f"{features_title(features)}: the erasure changes {share:.1%} of T's variance.")
    for name, sha256 in audit.rivals.items():
        sentences.append(f"{features_title(name)}: its weights have sha256 {sha256}.")
    if audit.classifier:
        sentences.append(f"The classifier: its weights have sha256 {audit.classifier}.")
    sentences.append(
        f"Made again with seed {audit.seed} and at most {audit.limit} images, the accuracies of probes hold to "
        f"{audit.tolerance.probes:.1%}, those of D and of the classifier to {audit.tolerance.players:.1%}, and the "
        f"changes by erasure to {audit.tolerance.erased:.1%}."
    )
    return sentences


def described(audit):
    """Returns how an `Audit` was made, its table and what belongs to it, as lines of Markdown."""
    bullets = [f"* {sentence}" for sentence in remarks(audit)]
    return [introduction(audit), "", markdown_table(*table(audit.findings)), "", *bullets]


def features_title(features):
    """Returns what a person reads for the `features` of a `Finding`."""
    name, _, decoded = features.partition(" ")
    return FEATURES.get(name, f"T of {name}") + DECODED[decoded]


def _cell(finding):
    return f"{finding.accuracy:.1%} ({100 * finding.low:.1f} to {100 * finding.high:.1f})"
