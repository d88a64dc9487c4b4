# %% [markdown]
# # What does T keep, and what does it lose?
#
# **An extractor can keep the background of an image and lose most of its category.** This tutorial shows it on images
# that the program draws, so that everything about them is known.
#
# An *extractor* is a trained network that turns an image x into its context T. T is a feature map that should describe
# everything about x but the category. Two more networks took part in the training:
#
# * The decoder G paints the image again from T and the category. As G is told the category, T need not hold it.
# * The discriminator D tries to read the category from T. The extractor learned to make D fail.
#
# The zoo of the library holds a trained extractor and its G. So this tutorial trains nothing but small readers of T. It
# takes less than a minute on two CPU cores.

# %%
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cdc_keras
from cdc_keras.audit.scenes import overlaps
from cdc_keras.data.scenes import CLASS_NAMES, TEXTURE_NAMES
from cdc_keras.data.shapes import shapes
from cdc_keras.runs.trained import load_decoder

# %% [markdown]
# ## Images and their T
#
# `shapes` draws ten categories of shapes on backgrounds that have nothing to do with the category. We take a seed of
# our own, because the extractor has seen the images of seed 0.

# %%
SHOWN = 6
scenes = shapes(200, seed=2024)
x = cdc_keras.preprocess_input(scenes.images)  # bytes to numbers in [-1, 1]

extractor = cdc_keras.zoo.load("shapes")  # x -> T
decoder = load_decoder("zoo:shapes")  # G: T and the category, as a row of zeros and a one -> image
context = np.asarray(extractor(x[:SHOWN]))
print(f"x has the shape {x.shape[1:]}, and T has the shape {context.shape[1:]}.")

# %% [markdown]
# The first row of the picture shows six images. The second row is their T, averaged over its channels. It is coarse and
# grainy: this extractor adds noise to T, every time, so that small details drown. The last row is what G makes of T and
# the right category. The backgrounds come back, and the shapes come back blurred.


# %%
def show(ax, picture, title="", **style):
    """Draws a picture, an image in [-1, 1] or a map, without axes."""
    ax.imshow(np.clip((picture + 1) / 2, 0, 1) if picture.ndim == 3 else picture, **style)
    ax.set_title(title, fontsize=9)
    ax.set_axis_off()


categories = np.eye(len(CLASS_NAMES), dtype="float32")
copies = np.asarray(decoder([context, categories[scenes.labels[:SHOWN]]]))

figure, axes = plt.subplots(3, SHOWN, figsize=(8, 4.5), layout="constrained")
for i, column in enumerate(axes.T):
    show(column[0], x[i], CLASS_NAMES[scenes.labels[i]])
    show(column[1], context[i].mean(axis=-1), "T")
    show(column[2], copies[i], "G(T, category)")
plt.show()

# %% [markdown]
# ## One T under ten categories
#
# Now G gets the same T, but is told each of the ten categories in turn. If T held the category, G could ignore what it
# is told, and a row would look the same everywhere. It does not: the shape becomes what G is told. Colour, place and
# background stay. So they are in T, and the kind of shape is mostly not. A bold title marks the image's own category.

# %%
every = len(CLASS_NAMES)
swaps = decoder([np.repeat(context, every, axis=0), np.tile(categories, (SHOWN, 1))])
swaps = np.asarray(swaps).reshape(SHOWN, every, *x.shape[1:])

figure, axes = plt.subplots(SHOWN, 1 + every, figsize=(11, 6.8), layout="constrained")
for i, row in enumerate(axes):
    show(row[0], x[i], "x")
    for k, ax in enumerate(row[1:]):
        show(ax, swaps[i, k], CLASS_NAMES[k])
        own = k == scenes.labels[i]
        ax.title.set(color="black" if own else "grey", weight="bold" if own else "normal")
plt.show()

# %% [markdown]
# ## V: where the category lives
#
# Look along a row again: little but the pixels of the shape changes. The map V measures how much the decoded image
# changes with the category, with one number for each position of T. V needs no label of the image and no mask.
#
# `cdc_keras.load` returns a network that gives T and V if `spread` is true, both without noise. The white line is the
# outline of the true shape, which V has never seen. To put it into numbers, we take the overlap (IoU) of V with the
# shape. As a control, we take that of another image's V. It is not zero, since all shapes lie near the middle.

# %%
maps = cdc_keras.load("zoo:shapes", spread=True).predict(x, batch_size=100, verbose=0)[1][..., 0]  # V
masks = scenes.factors["mask"]

figure, axes = plt.subplots(2, SHOWN, figsize=(8, 3), layout="constrained")
for i, column in enumerate(axes.T):
    show(column[0], x[i])
    show(column[1], x[i], "V")
    size = x.shape[1]
    column[1].imshow(maps[i], cmap="turbo", alpha=0.6, extent=(-0.5, size - 0.5, size - 0.5, -0.5))
    column[1].contour(masks[i], levels=[0.5], colors="white", linewidths=1)
plt.show()

own, another = overlaps(maps, masks)
print(f"The overlap of V with the shape is {own.mean():.2f}, that of another image's V is {another.mean():.2f}.")

# %% [markdown]
# ## What a reader finds in T
#
# Pictures persuade too easily, so we let a fresh *reader* look at T. A reader is a classifier that learns to name one
# fact about an image from its T. We ask for four facts: the texture of the background, its hue, the place of the shape,
# and the category. The same reader gets the pixels for comparison. It learns from 4,000 scenes and is tested on 1,000
# others, so an accuracy is known to about three points.


# %%
def facts(split):
    """Returns {fact: (number of its values, the value for each image)}."""
    third = [np.digitize(split.factors[axis], (0.453, 0.547)) for axis in ("x", "y")]  # centres lie in 0.36 to 0.64
    return {
        "texture": (len(TEXTURE_NAMES), split.factors["texture"]),
        "sixth of the hues": (6, (6 * split.factors["hue"]).astype(int)),
        "place": (9, third[0] + 3 * third[1]),
        "category": (every, split.labels),
    }


def readable(split):
    """Returns {where a reader looks: one row of numbers for each image}."""
    inputs = cdc_keras.preprocess_input(split.images)
    halved = inputs.reshape(len(inputs), 16, 2, 16, 2, 3).mean(axis=(2, 4))  # 16 x 16: learned faster, and read better
    return {
        "T": extractor.predict(inputs, batch_size=250, verbose=0).reshape(len(inputs), -1),
        "pixels": halved.reshape(len(inputs), -1),
    }


learned, tested = shapes(4000, seed=2025), shapes(1000, seed=2026)
from_learned, from_tested = readable(learned), readable(tested)
accuracy = {"T": [], "pixels": [], "chance": []}
for fact, (values, truth) in facts(learned).items():
    for source in ("T", "pixels"):
        reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        reader.fit(from_learned[source], truth)
        accuracy[source].append(reader.score(from_tested[source], facts(tested)[fact][1]))
    accuracy["chance"].append(1 / values)
    print(f"{fact:17} " + ", ".join(f"{source} {found[-1]:.1%}" for source, found in accuracy.items()))

# %%
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
for shift, (source, found) in enumerate(accuracy.items()):
    bars = ax.bar(np.arange(len(found)) + 0.27 * (shift - 1), found, 0.25, label=source)
    ax.bar_label(bars, fmt="{:.0%}", fontsize=8)
ax.set(xticks=range(len(found)), xticklabels=facts(tested), ylabel="read correctly", ylim=(0, 1.05))
ax.legend(frameon=False, ncols=3)
plt.show()

# %% [markdown]
# ## What this shows, and what it does not
#
# From T, the reader names the texture, the hue and the place far more often than chance. It names the category hardly
# more often than chance, and more often from the pixels. T keeps what does not matter for the category.
#
# **This reader is weak.** It is a logistic regression, which only weighs and adds the numbers it sees. Even from the
# pixels it reads the category of fewer than half of the scenes. What it cannot read may still be there. Readers with
# hidden layers and convolutions find some of the category in this T: about twice chance, and far less than they find in
# the pixels. The page `docs/disentangling.md` has their scores. It also names the price, which is the blur of the
# shapes. To ask stronger readers yourself, run this command. It takes half an hour or more:
#
# ```sh
# cdc-keras audit --model=zoo:shapes --out=audit_of_shapes
# ```
