"""One examination: the images, what is asked of them, and every answer with its interval."""

import itertools
import sys
import time

import numpy as np
from tqdm import tqdm

from cdc_keras.audit import decoding
from cdc_keras.audit.bootstrap import interval
from cdc_keras.audit.erasure import leace
from cdc_keras.audit.probes import PROBES, probe, small_pixels, standardized
from cdc_keras.zoo.findings import Reading

NUISANCES = ("texture", "hue")  # factors that are probed for where they are known
BINS = 6  # a factor that is a real number becomes so many classes


class Examination:
    """The two halves, and all that is read on them.

    Args:
        train, scored: `Split`s, for the probes to learn from and to be scored on.
        before: the `Split` of images that the extractor was trained on.
        num_classes: number of categories.
        seed: of everything random.
    """

    def __init__(self, train, scored, before, num_classes, seed):
        self.train, self.scored, self.before = train, scored, before
        self.num_classes, self.seed = num_classes, seed
        self.targets = {"category": (train.labels, scored.labels, num_classes)}
        for name in NUISANCES:
            if name in scored.factors:
                self.targets[name] = _classes(train.factors[name], scored.factors[name])
        self.order = ("category", *NUISANCES, "condition")
        self.readings, self.errors, self.erased = [], {}, {}

    def run(self, subjects, classifier):
        """Fills `readings`, `errors` and `erased`."""
        self.left = ((len(subjects) + 1) * len(self.targets) + 3) * len(PROBES)  # and pixels; and three controls
        self.total, self.started = self.left, time.monotonic()
        if classifier is not None:
            self._add("category", "images", "classifier", decoding.classified(classifier, self.scored.images))
        for name, subject in subjects.items():
            features = [decoding.contexts(subject.network, half.images) for half in (self.train, self.scored)]
            self._probe_all(name, *features)
            if subject.disentangler is not None:
                self._ask_players(name, subject.disentangler, features[1], classifier)
            if name == "context":
                self._controls(subject.network, *features)
        self._probe_all("pixels", *(small_pixels(half.images) for half in (self.train, self.scored)))
        self.readings.sort(key=lambda reading: self.order.index(reading.target))

    def _controls(self, network, train, scored):
        """Probes T under shuffled labels and after erasure."""
        shuffled = np.random.default_rng(self.seed).permutation(self.train.labels)
        self._probe_all("shuffled", train, scored, {"category": shuffled})
        before = decoding.contexts(network, self.before.images)
        train, scored, before = standardized(train, scored, before)
        fits = {"erased": (train, self.train.labels), "erased-before": (before, self.before.labels)}
        for name, (features, labels) in fits.items():
            eraser = leace(features, labels, self.num_classes)
            clean = eraser(scored)
            self.erased[name] = float(np.mean((clean - scored) ** 2) / np.mean((scored - scored.mean(axis=0)) ** 2))
            self._probe_all(name, eraser(train), clean, {"category": self.train.labels})

    def _probe_all(self, source, train, scored, train_labels=None):
        """Has every probe read every target, or those of which other `train_labels` are given, {target: labels}."""
        train_labels = train_labels or {target: values[0] for target, values in self.targets.items()}
        for target, kind in itertools.product(train_labels, PROBES):
            self._probe(target, source, kind, train, scored, train_labels[target])

    def _probe(self, target, source, kind, train, scored, train_labels):
        _, _, num_classes = self.targets[target]
        found = probe(train, train_labels, scored, kind=kind, num_classes=num_classes, seed=self.seed)
        self._add(target, source, kind, found)
        self.left -= 1
        spent = time.monotonic() - self.started
        left = tqdm.format_interval(spent / (self.total - self.left) * self.left)
        reading = f"{target} from {source} by {kind}: {self.readings[-1].accuracy:.1%}"
        print(f"probe {self.total - self.left}/{self.total}  {reading}  {left} left", file=sys.stderr, flush=True)

    def _ask_players(self, name, model, context, classifier):
        """Adds what D reads from T, the reconstruction error, and what a classifier says of decoded T."""
        labels = self.scored.labels
        if model.adversarial:
            self._add("category", name, "discriminator", decoding.discriminated(model, context))
        errors = decoding.reconstruction_errors(model, self.scored.images, context, labels)
        low, high = interval(errors, self.seed)
        self.errors[name] = {"mean": float(errors.mean()), "low": low, "high": high}
        if classifier is None:
            return
        says = decoding.classified_decoded(classifier, model, context, labels)
        self._add("category", f"{name} reconstruction", "classifier", says)
        others = decoding.other_labels(labels, self.num_classes, self.seed)
        says = decoding.classified_decoded(classifier, model, context, others)
        self._add("category", f"{name} swap", "classifier", says)
        self._add("condition", f"{name} swap", "classifier", says, others)

    def _add(self, target, source, reader, found, expected=None):
        """Adds the reading of (N,) answers `found`; right are those of the target, or `expected`."""
        if expected is None:
            train_labels, expected, _ = self.targets[target]
            chance = np.mean(expected == np.bincount(train_labels).argmax())
        else:
            chance = 1 / self.num_classes
        hits = found == expected
        values = [float(hits.mean()), *interval(hits, self.seed), float(chance)]
        self.readings.append(Reading(target, source, reader, *values))


def _classes(train, scored):
    """Returns (train, scored, number of classes) of a factor, real numbers cut into `BINS`."""
    if np.issubdtype(train.dtype, np.floating):
        edges = np.quantile(train, np.arange(1, BINS) / BINS)
        return np.searchsorted(edges, train), np.searchsorted(edges, scored), BINS
    return train, scored, int(max(train.max(), scored.max())) + 1
