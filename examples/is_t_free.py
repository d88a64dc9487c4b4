# %% [markdown]
# # Is T really free of the category?
#
# **Mostly, but not entirely. New readers find the category in the context T more often than by chance, and far less
# often than in the image itself.** This tutorial shows what stands behind such a sentence, and what it does not say. It
# takes one to two minutes on two CPU cores.
#
# An *extractor* is a trained network that turns an image x into its context T, a feature map that should describe
# everything about x but the category. Two more networks took part in the training. The decoder G paints x again from T
# and the category. The discriminator D tries to read the category from T, and the extractor learned to make D fail.
#
# Whether T is free of the category has to be asked *after* the training, of new readers. This is called an audit.

# %%
import csv
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import cdc_keras
from cdc_keras.audit import summary
from cdc_keras.audit.bootstrap import interval
from cdc_keras.audit.decoding import contexts
from cdc_keras.audit.probes import probe, small_pixels
from cdc_keras.data.shapes import shapes
from cdc_keras.zoo.findings import Finding, headline

work = pathlib.Path(tempfile.mkdtemp())
tf.get_logger().setLevel("ERROR")  # every probe is a new network, of which TensorFlow would warn us

# %% [markdown]
# ## What a discriminator proves: nothing
#
# If D fails, the extractor has learned to fool *this* D. The category may still be there. A *probe* is a new
# classifier, trained on T when the extractor is finished. The table sets D beside the strongest probe.

# %%
print(f"{'extractor':20} {'its own D':>10} {'strongest probe':>16} {'chance':>8}")
for name in cdc_keras.zoo.names():
    audit = cdc_keras.zoo.info(name).audit
    d = [x.accuracy for x in audit.findings if x.reader == "discriminator"] if audit else []
    if d:  # extractors that were trained against a discriminator
        strongest = audit.strongest("context")
        print(f"{name:20} {d[0]:10.1%} {strongest.accuracy:16.1%} {strongest.chance:8.1%}")

# %% [markdown]
# `cifar100_strong` was trained hard against its D. There D reads less than a fresh probe does: it has been fooled.
# Elsewhere D reads more than the probes, as it has learned for longer. So neither of the two is an upper bound, and the
# audit reports both.
#
# ## The published audit of `shapes`
#
# The extractor `shapes` has learned from images that the program draws: ten shapes on textured backgrounds. Its audit
# is part of its record. One command makes it again; it takes the better part of an hour on two cores:
#
# ```sh
# cdc-keras audit --model=zoo:shapes --out=audit_of_shapes
# ```
#
# It writes `audit.md` for reading, `audit.json` with every number, and the picture `audit.png`. The record holds the
# same findings as `audit.json`, so we can read them and draw that picture without the hour.


# %%
def show(path):
    """Shows a picture from a file, as wide as the page."""
    picture = plt.imread(path)
    plt.figure(figsize=(12, 12 * picture.shape[0] / picture.shape[1]), layout="constrained")
    plt.imshow(picture)
    plt.axis("off")
    plt.show()


published = cdc_keras.zoo.info("shapes").audit
summary.draw(published.findings, work / "published.png")
show(work / "published.png")

print(headline(published))
print(f"Its probes learned from {published.probe_images:,} images and were scored on {published.scored_images:,}.")

# %% [markdown]
# How to read it:
#
# * **A panel** is something to be read. T should not hold the category. It should hold the texture and the hue of the
#   background, and the rotation of the shape.
# * **A column** is a kind of probe. The linear one only weighs and adds numbers, k-NN looks for similar images, the MLP
#   has a hidden layer, and conv is a small convolutional network. The strongest counts.
# * **Chance** is the score of a reader that always gives the commonest answer.
# * **Training labels shuffled** checks the method itself. These probes learned from wrong labels, so they have to end
#   at chance.
# * **Category erased** is T after LEACE, a formula that removes what a linear probe could read. If it was fitted on the
#   probes' images, what they still find is not linear. If on the extractor's, it is what new images still tell.
# * **Pixels** is the same for the image itself. "21% from T" would mean little if such probes read 22% from the pixels.
#
# ## A small audit of our own
#
# Now we compare ourselves, with a tenth of the images. We add a rival, a *CGM*: an extractor with a decoder and without
# a discriminator. It tells how much of the category a T holds that nobody made free. We train one for a short while.

# %%
command = [
    *("train", "--task=extractor", "--context=cgm", "--dataset=shapes", "--context_channels=16"),
    *("--train_limit=1500", "--epochs=1", "--batch_size=16", "--learning_rate=1e-3", f"--run_dir={work / 'cgm'}"),
]
done = subprocess.run([sys.executable, "-m", "cdc_keras", *command], capture_output=True, text=True)
print(done.stderr if done.returncode else "", end="")
done.check_returncode()

last = list(csv.DictReader((work / "cgm" / "metrics.csv").open()))[-1]
copied = {x.name: x.value for x in cdc_keras.zoo.info("shapes").metrics}["reconstruction_loss"]
print(f"Mean squared error of a copy: the rival {float(last['val_reconstruction_loss']):.3f}, shapes {copied:.3f}")

# %% [markdown]
# A T that holds less of everything holds less of the category, too. The rival was trained for seconds only. If its
# copies are worse, its T holds less of the image, and has no excuse for holding more of the category.
#
# Every probe below learns from the same fresh scenes, and is scored on other ones. No network has seen either. We leave
# out the convolutional probe, which takes the longest. This extractor adds noise to T. The audit draws the noise three
# times for every image, and we draw it once.

# %%
learned, scored = shapes(2000, seed=2025), shapes(1000, seed=2026)
networks = {"context": cdc_keras.zoo.load("shapes"), "cgm": cdc_keras.load(work / "cgm")}
features = {name: [contexts(net, split.images) for split in (learned, scored)] for name, net in networks.items()}
features["pixels"] = [small_pixels(split.images) for split in (learned, scored)]


def finding(target, place, kind, count=None):
    """Returns what a fresh probe finds after learning from the first `count` images, or all; names are an audit's."""
    labels, expected = ((x.labels if target == "category" else x.factors[target]) for x in (learned, scored))
    labels = labels[:count]
    if place == "shuffled":
        labels = np.random.default_rng(0).permutation(labels)
    train, test = features["context" if place == "shuffled" else place]
    right = probe(train[:count], labels, test, kind=kind, num_classes=10, seed=0) == expected
    chance = np.mean(expected == np.bincount(labels).argmax())
    return Finding(target, place, kind, float(right.mean()), *interval(right, 0), float(chance))


found = [finding("category", place, kind) for place in features for kind in ("linear", "knn", "mlp")]
found += [finding("category", "shuffled", "mlp"), finding("texture", "context", "mlp")]

summary.draw(found, work / "audit.png")
show(work / "audit.png")
for x in found:
    print(f"{x.target:9} from {x.features:9} by {x.reader:7} {x.accuracy:5.1%}  ({x.low:.1%} to {x.high:.1%})")

# %% [markdown]
# * **T of `shapes`** hardly gives the category away. With shuffled labels the probe is at chance.
# * **T of the rival** gives the category away about as well as the pixels do. So a T is not free of the category by
#   itself, and these probes can find the category where it is.
# * **The texture** can be read from T of `shapes`. So T is not simply empty.
#
# ## Few images, weak probes
#
# In our small audit T looks freer than in the published one, yet the extractor is the same. The probes are weaker, as
# they have learned from fewer images. The next picture shows the MLP with more and more images. The last points are
# those of the published audit.

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for place, title in (("context", "T of shapes"), ("pixels", "pixels")):
    points = {200: finding("category", place, "mlp", count=200)}
    points[len(learned)] = next(x for x in found if (x.target, x.features, x.reader) == ("category", place, "mlp"))
    points[published.probe_images] = next(x for x in published.findings if x.key == ("category", place, "mlp"))
    accuracy = np.array([x.accuracy for x in points.values()])
    ends = [[x.accuracy - x.low for x in points.values()], [x.high - x.accuracy for x in points.values()]]
    ax.errorbar(list(points), accuracy, ends, fmt="o-", capsize=3, label=title)
    print(f"{title}: " + ", ".join(f"{count:,} images {x.accuracy:.1%}" for count, x in points.items()))
ax.axhline(0.1, color="gray", linestyle="--", label="chance")
ax.set(xscale="log", xlabel="images that the probe learned from", ylabel="category read", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# With more images, more is read. An audit is therefore a *lower bound*: it says how much can be read at least. A probe
# that reads nothing shows that this probe, with these images, reads nothing.
#
# ## What you may conclude
#
# * **You may say:** T holds at least as much of the category as the strongest probe reads.
# * **You may say:** as far as these probes can see, T holds less of it than the pixels, or than a rival's T. All probes
#   have to learn from the same images.
# * **You may not say:** T is free of the category, because D is at chance, or because the probes of a small audit are.
# * **You may not compare** audits of different size. Nor may a rival copy the image much better: it would hold more of
#   everything.
# * **The intervals** tell what other scored images would change. They do not cover another seed of the extractor. For
#   that, train several.
#
# `docs/audit.md` describes the whole audit, and `docs/disentangling.md` has its results. On CIFAR-100 they are far less
# kind to the method. To audit a run of your own, with a rival:
#
# ```sh
# cdc-keras audit --model=runs/extractor --rivals=cgm=runs/cgm
# ```
