# %% [markdown]
# # Gate your own Keras model
#
# **One call puts a gate into a Keras model, and where backgrounds mislead, the gate can make the model depend on them
# less.** This tutorial builds a small network, trains it with and without a gate, and looks at what the gate does. It
# takes about a minute on two CPU cores.
#
# * An *extractor* is a network, trained beforehand, that turns an image x into its context T. T is a feature map that
#   should describe everything about x but its category.
# * A *gate* sits inside your classifier and reads T. It computes an attention map M, with one number for each position,
#   by which it turns features down.
# * The decoder G was trained with the extractor. It paints the image again from T and the category. The map V measures
#   how much the decoded image changes with the category. So V is large where the object is.

# %%
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

import cdc_keras
from cdc_keras.audit.scenes import overlaps
from cdc_keras.data.shapes import load_shapes

keras.utils.set_random_seed(3)

# %% [markdown]
# ## Images whose backgrounds mislead
#
# `load_shapes` draws ten categories of shapes. In the training and validation images, the background gives the category
# away in 19 of 20 cases. In the test images it says nothing. A network that learns the backgrounds will fail there. The
# seed is not 0, because the extractor has seen the images of seed 0. Those had backgrounds that say nothing.

# %%
dataset = load_shapes(seed=31, background_bias=0.95, train_size=500, validation_size=200, test_size=1000)
splits = {"training": dataset.train, "test": dataset.test}

figure, axes = plt.subplots(2, 10, figsize=(10, 2.5), layout="constrained")
for row, (name, split) in zip(axes, splits.items(), strict=True):
    for i, ax in enumerate(row):
        category = i // 5  # the two first categories, five images each
        ax.imshow(split.images[split.labels == category][i % 5])
        ax.set_title(f"{name}: {dataset.class_names[category]}", fontsize=8)
        ax.set_axis_off()
plt.show()

# %% [markdown]
# ## A small network
#
# This is the model to be gated: three convolutions, written here. Any functional or sequential Keras model with one
# image input would do. It takes images in [-1, 1], and they have the size that the extractor takes, 32 pixels.

# %%
images = features = keras.Input((32, 32, 3))
for number, width in enumerate((16, 32, 64), 1):
    features = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{number}")(features)
    features = layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(features)  # 0.9: few steps are to come
    features = layers.ReLU(name=f"relu{number}")(features)
    if number < 3:
        features = layers.MaxPooling2D(name=f"pool{number}")(features)
features = layers.GlobalAveragePooling2D(name="mean")(features)
plain = keras.Model(images, layers.Dense(10, name="logits")(features), name="small")

# %% [markdown]
# ## Where a gate fits
#
# `usable_sites` lists the layers behind which a gate can stand, the best first. Unless you name others, the gate stands
# where features have the resolution of T, 8 x 8, and twice that. It stands behind the normalization, before ReLU.

# %%
for site in cdc_keras.usable_sites(plain, "zoo:shapes"):
    end = ", the last layer at this resolution" if site.ends_group else ""
    print(f"{site.name}: {site.height} x {site.width} positions, {site.channels} channels{end}")

# %% [markdown]
# ## The default gate changes nothing at first
#
# A new gate starts as the identity: it multiplies by one and adds zero. So the gated model predicts exactly what the
# plain one predicts, to the last bit, and you can gate a trained model without harm. Only training moves it away. With
# `copy=True` the gated model has layers of its own. Otherwise the two share them, and training one changes the other.

# %%
pictures = cdc_keras.preprocess_input(dataset.test.images[:100])
unchanged = cdc_keras.attach(plain, "zoo:shapes", copy=True)
predictions = [model.predict(pictures, batch_size=100, verbose=0) for model in (plain, unchanged)]
print(f"The gated model predicts exactly as the plain one: {np.array_equal(*predictions)}.")

# %% [markdown]
# ## A gate that starts from V
#
# Here we want more than that. With `init="spread"`, M starts from V, scaled to lie between 0.2 and 1. Such a gate turns
# down the background from the first step on, and so changes the predictions at once. The gated model then contains G,
# which paints every image under five categories. So its training takes a few times as long as that of the plain one.
#
# Both models start from the same weights and see the same images in the same number of steps.

# %%
gated = cdc_keras.attach(plain, "zoo:shapes", init="spread", copy=True)
accuracy = {}
for name, model in {"plain": plain, "gated": gated}.items():
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        cdc_keras.preprocess_input(dataset.train.images), dataset.train.labels, batch_size=25, epochs=10, verbose=0
    )
    accuracy[name] = [
        model.evaluate(cdc_keras.preprocess_input(split.images), split.labels, batch_size=100, verbose=0)[1]
        for split in (dataset.validation, dataset.test)
    ]
    print(f"{name}: backgrounds as in training {accuracy[name][0]:.1%}, any background {accuracy[name][1]:.1%}")

# %% [markdown]
# On backgrounds as in training, both are nearly always right. On the test images, where the background says nothing,
# both lose most of that: they had learned the backgrounds. Chance is 10%. The gated model should keep a few points
# more, since it sees less of the background.
#
# **This is one short run with one seed, so the difference of the two proves nothing.** The gate also brings weights of
# its own, and its extractor has learned from the labels of other images. The fair questions are: does the same gate
# gain as much with the T and V of another image? Does a plain network of as many weights? `docs/does_it_pay.md` asks
# them with several seeds, and `docs/controls.md` lists the controls. The first one is an argument of `attach`:
# `shuffle_context=True`. `docs/gate.md` explains the most important arguments, and `help(cdc_keras.attach)` all.
#
# ## M beside V
#
# M is an output of a layer of the gated model, `gate_attention`. Below each image stand V, from which M started, and M
# after training. The numbers are the overlap (IoU) of each map with the true shape and, as a control, that of another
# image's map.

# %%
split = dataset.test.take(slice(100))
pictures = cdc_keras.preprocess_input(split.images)
to_attention = keras.Model(gated.input, gated.get_layer("gate_attention").output)
maps = {
    "V": np.asarray(cdc_keras.load("zoo:shapes", spread=True)(pictures)[1])[..., 0],
    "M": np.asarray(to_attention(pictures))[..., 0],
}

figure, axes = plt.subplots(3, 8, figsize=(9, 3.6), layout="constrained")
for i, column in enumerate(axes.T):
    column[0].imshow(split.images[i])
    for ax, (name, values) in zip(column[1:], maps.items(), strict=True):
        ax.imshow(split.images[i])
        ax.imshow(values[i], cmap="turbo", alpha=0.6, extent=(-0.5, 31.5, 31.5, -0.5))
        ax.set_title(name, fontsize=9)
    for ax in column:
        ax.set_axis_off()
plt.show()

for name, values in maps.items():
    own, another = overlaps(values, split.factors["mask"])
    print(f"{name}: overlap with the shape {own.mean():.2f}, that of another image's {name} {another.mean():.2f}")

# %% [markdown]
# M is large on the shape and small around it, though nobody told this model where shapes are.
#
# ## Your own model
#
# Replace `plain` by your model, and `"zoo:shapes"` by the run of an extractor that was trained on images like yours.
# The tutorial `your_photographs.py` trains one. To start from V, it needs a decoder that paints the category it is
# told: train it with `--flagfile=configs/counterfactual.flags`. It also needs to have seen backgrounds that do not
# mislead. `docs/gate.md` has the other choices: sites, the parts of the gate, and models with other ranges of pixels.
