"""One examination: images for probes to learn from and to be scored on, and every finding with its interval."""

import itertools

import numpy as np

from cdc_keras.audit import decoding, scenes
from cdc_keras.audit.bootstrap import interval, with_interval
from cdc_keras.audit.erasure import leace
from cdc_keras.audit.probes import PROBES, probe, small_pixels, standardized
from cdc_keras.networks import autoencoder
from cdc_keras.progress import Bar
from cdc_keras.zoo.findings import Finding

NUISANCES = ("texture", "hue", "rotation")  # factors that are probed for where they are known
DRAWS = 3  # of a noisy T of each image that probes learn from
BINS = 6  # a factor that is a real number becomes so many classes


class Examination:
    """The images of both kinds, and all that is found on them.

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
        self.findings, self.errors, self.erased, self.scenes = [], {}, {}, {}

    def run(self, extractors, disentanglers, classifier, config=None):
        """Fills `findings`, `errors`, `erased` and, on `shapes`, `scenes`.

        Args:
            extractors: {"context" or the name of a rival: functional extractor, images in [-1, 1] -> T}.
            disentanglers: {the same names: trained `Disentangler`}, of those extractors that have one.
            classifier: functional model that judges what is decoded, or None.
            config: the `RunConfig` of the extractors' images, if they are `shapes`.
        """
        total = ((len(extractors) + 1) * len(self.targets) + 3) * len(PROBES)  # 1 for pixels, 3 controls
        with Bar(total, "probes", "audit") as self.bar:
            if classifier is not None:
                self._add("category", "images", "classifier", decoding.classified(classifier, self.scored.images))
            for name, extractor in extractors.items():
                features = [self._learned(extractor), decoding.contexts(extractor, self.scored.images)]
                self._probe_all(name, *features)
                if name in disentanglers:
                    self._judge_players(name, disentanglers[name], features[1], classifier)
                    if config is not None and disentanglers[name].conditional:
                        self.scenes[name] = scenes.measured(
                            extractor, disentanglers[name], config, len(self.scored), self.seed
                        )
                if name == "context":
                    self._controls(extractor, *features)
            self._probe_all("pixels", *(small_pixels(split.images) for split in (self.train, self.scored)))
        self.findings.sort(key=lambda finding: self.order.index(finding.target))

    def _learned(self, extractor):
        """Returns T of the images that probes learn from, (N, h, w, C); of a noisy T all `DRAWS` times, one by one."""
        draws = 1 if autoencoder.mean_encoder(extractor) is extractor else DRAWS
        return np.concatenate([decoding.contexts(extractor, self.train.images) for _ in range(draws)])

    def _controls(self, network, train, scored):
        """Probes T under shuffled labels and after erasure."""
        shuffled = np.random.default_rng(self.seed).permutation(self.train.labels)
        self._probe_all("shuffled", train, scored, {"category": shuffled})
        before = decoding.contexts(network, self.before.images)
        train, scored, before = standardized(train, scored, before)
        fits = {
            "erased": (train, np.resize(self.train.labels, len(train))),
            "erased-before": (before, self.before.labels),
        }
        for name, (features, labels) in fits.items():
            eraser = leace(features, labels, self.num_classes)
            clean = eraser(scored)
            self.erased[name] = float(np.mean((clean - scored) ** 2) / np.mean((scored - scored.mean(axis=0)) ** 2))
            self._probe_all(name, eraser(train), clean, {"category": self.train.labels})

    def _probe_all(self, name, train, scored, train_labels=None):
        """Has every probe read every target, or those of which other `train_labels` are given, {target: labels}."""
        train_labels = train_labels or {target: values[0] for target, values in self.targets.items()}
        draws = len(train) // len(self.train)
        for target, kind in itertools.product(train_labels, PROBES):
            options = {"kind": kind, "num_classes": self.targets[target][2], "seed": self.seed}
            predictions = probe(train, np.tile(train_labels[target], draws), scored, **options)
            self._add(target, name, kind, predictions)
            self.bar.metrics = {f"{target} from {name} by {kind}": self.findings[-1].accuracy}
            self.bar.update()

    def _judge_players(self, name, model, context, classifier):
        """Adds what D reads from T, the reconstruction error, and what a classifier takes decoded T for."""
        labels = self.scored.labels
        if model.adversarial:
            self._add("category", name, "discriminator", decoding.discriminated(model, context))
        errors = decoding.reconstruction_errors(model, self.scored.images, context, labels)
        self.errors[name] = with_interval(errors, self.seed)
        if classifier is None:
            return
        predictions = decoding.classified_decoded(classifier, model, context, labels)
        self._add("category", f"{name} reconstruction", "classifier", predictions)
        others = decoding.other_labels(labels, self.num_classes, self.seed)
        predictions = decoding.classified_decoded(classifier, model, context, others)
        self._add("category", f"{name} swap", "classifier", predictions)
        self._add("condition", f"{name} swap", "classifier", predictions, others)

    def _add(self, target, features, reader, predictions, expected=None):
        """Adds the finding of (N,) predictions; right are those of the target, or `expected`."""
        if expected is None:
            train_labels, expected, _ = self.targets[target]
            chance = np.mean(expected == np.bincount(train_labels).argmax())
        else:
            chance = 1 / self.num_classes
        hits = predictions == expected
        values = [float(hits.mean()), *interval(hits, self.seed), float(chance)]
        self.findings.append(Finding(target, features, reader, *values))


def _classes(train, scored):
    """Returns (train, scored, number of classes) of a factor, real numbers cut into `BINS`."""
    if np.issubdtype(train.dtype, np.floating):
        edges = np.quantile(train, np.arange(1, BINS) / BINS)
        return np.searchsorted(edges, train), np.searchsorted(edges, scored), BINS
    return train, scored, int(max(train.max(), scored.max())) + 1
