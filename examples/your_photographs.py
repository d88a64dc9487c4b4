# %% [markdown]
# # Train an extractor on a folder of your photographs
#
# **Two commands are enough: one trains an extractor on your folder, and one trains a classifier that it gates.** This
# tutorial runs both on a small stand-in for your photographs. It takes one to three minutes on two CPU cores.
#
# * An *extractor* is a network that turns an image x into its context T. T is a feature map that should describe
#   everything about x but its category: background, place, colour.
# * A *gate* sits inside a classifier and reads T. It computes an attention map M, with one number for each position, by
#   which it turns features down. It also weighs the channels of the features.

# %%
import csv
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less

import keras
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import cdc_keras
from cdc_keras.data.scenes import CLASS_NAMES
from cdc_keras.data.shapes import shapes

# %% [markdown]
# ## The folder
#
# Each category has a folder of its own, with the images of that category in it. Put the path of your folder here, as
# `photographs`, and leave out the loop that draws images. JPEG, PNG, WebP and BMP files of any size will do: the
# shorter side is resized, and the centre is cut out.

# %%
work = pathlib.Path(tempfile.mkdtemp())
photographs = work / "photographs"  # put the path of your folder here

drawn = shapes(1000, seed=7)
for number, (picture, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
    if label < 4:  # four of the ten categories keep this tutorial short
        folder = photographs / CLASS_NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:04}.png")

for folder in sorted(photographs.iterdir()):
    print(f"{folder.name}: {len(list(folder.iterdir()))} images")

# %% [markdown]
# ## Train the extractor
#
# We call the command line, because training by it can be stopped and continued, and keeps a record. In a shell, you
# would write `cdc-keras` in front of the same words.
#
# While it trains, two more networks take part. The decoder G paints the image again from T and the category. The
# discriminator D tries to read the category from T, and the extractor learns to make it fail. The weight of that second
# aim rises slowly. By default it rises over half a million steps, which a short run never reaches. The flag
# `--fool_ramp_fraction=0.53` lets it rise over half of *this* training.


# %%
def cdc(*arguments):
    """Runs a command of cdc-keras, and shows what it prints and, only if it fails, its progress and its errors."""
    done = subprocess.run([sys.executable, "-m", "cdc_keras", *arguments], capture_output=True, text=True)
    print(done.stdout, done.stderr if done.returncode else "", sep="")
    done.check_returncode()


data = ["--dataset=folder", f"--data_dir={photographs}", "--image_size=32"]
cdc(
    *("train", "--task=extractor", *data, f"--run_dir={work / 'extractor'}"),
    *("--epochs=6", "--learning_rate=1e-3", "--fool_ramp_fraction=0.53"),  # 1e-3: few epochs need large steps
)

# %% [markdown]
# ## What the extractor has learned
#
# `cdc_keras.load` returns the trained extractor as a Keras model. It maps images in [-1, 1] to T.

# %%
extractor = cdc_keras.load(work / "extractor")
files = sorted(photographs.glob("*/*"))[::50]  # a few of each category
x = cdc_keras.preprocess_input(np.stack([np.array(Image.open(file).convert("RGB").resize((32, 32))) for file in files]))
print(f"T of {len(x)} images has the shape {extractor.predict(x, verbose=0).shape}.")

# %% [markdown]
# Each run draws pictures while it trains, into its folder `pictures`. The first one shows images, what G makes of their
# T, and the difference. After so few epochs the copies are coarse, but colours and places should be there.


# %%
def show(path, width):
    """Shows a picture that a run has drawn."""
    picture = plt.imread(path)
    plt.figure(figsize=(width, width * picture.shape[0] / picture.shape[1]), layout="constrained")
    plt.imshow(picture)
    plt.axis("off")
    plt.show()


show(work / "extractor" / "pictures" / "reconstructions.png", 10)

# %% [markdown]
# The curves come from `metrics.csv`, which has one row for each epoch. Look at two of them first. The reconstruction
# loss should fall. The accuracy of D should come down towards chance, which is a quarter here, once the second aim has
# weight. In a run as short as this one it usually climbs instead: T still tells some of the category.

# %%
rows = list(csv.DictReader((work / "extractor" / "metrics.csv").open()))
epochs = [int(row["epoch"]) for row in rows]
figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for ax, name in zip(axes, ("reconstruction_loss", "discriminator_accuracy"), strict=True):
    for key, title in ((name, "training"), (f"val_{name}", "validation")):
        ax.plot(epochs, [float(row[key]) for row in rows], ".-", label=title)
    ax.set(title=name, xlabel="epoch", ylim=(0, None))
    ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Even a D near chance proves little, since the extractor has learned to fool just this one. The command `cdc-keras
# audit` trains fresh classifiers on T, and tells what they find.
#
# ## Train a gated classifier
#
# The second command takes the same folder and names the run of the extractor. `vgg13_slim` is a small network that a
# CPU trains. A fifth of every category was put aside as test images, the same for every run, so no network has seen
# them.

# %%
cdc(
    *("train", "--task=classifier", *data, f"--extractor={work / 'extractor'}", f"--run_dir={work / 'gated'}"),
    *("--network=vgg13_slim", "--epochs=6", "--batch_size=32", "--learning_rate=0.02", "--warmup_epochs=0"),
)
cdc("evaluate", f"--model={work / 'gated'}")

# %% [markdown]
# The scores are on the test images. `top1` is the share of images whose category is named first; chance is a quarter.
# So few images are far too few to judge a gate by. **Always train the plain network too**: it is the same command
# without `--extractor`. Without it, you cannot know whether the gate helped.
#
# The trained classifier is a Keras model as well. Below it names the two likeliest categories of eight images, and the
# folder of each stands in front. It was trained on some of them. Its layer `gate_attention` gives M. M starts at 1,
# where the gate changes nothing, and a run as short as this one hardly moves it.

# %%
classifier = cdc_keras.load(work / "gated")
answers = cdc_keras.decode_predictions(classifier.predict(x, verbose=0), work / "gated", top=2)
for file, answer in zip(files, answers, strict=True):
    print(f"{file.parent.name}: " + ", ".join(f"{name} {probability:.0%}" for name, probability in answer))
attention = keras.Model(classifier.input, classifier.get_layer("gate_attention").output)
maps = attention.predict(x, verbose=0)  # M
print(f"M has {maps.shape[1]} x {maps.shape[2]} positions, with values from {maps.min():.3f} to {maps.max():.3f}.")

# %% [markdown]
# ## What a run leaves behind
#
# A run folder holds all that is needed to use, question and repeat the run. `flags.txt` has all settings and can be
# given back as `--flagfile`. `run.json` tells versions, hardware and data.

# %%
for path in sorted((work / "gated").rglob("*")):
    if path.is_file() and not path.name.startswith("."):
        print(f"{path.stat().st_size / 1024:8.0f} KB  {path.relative_to(work / 'gated')}")

# %% [markdown]
# ## For real photographs
#
# Change two things, keep the third, and give both commands hours instead of seconds:
#
# * **Size.** `--image_size=128`, or 224. An extractor can be trained for 32, 128 or 224 pixels, and a gated classifier
#   takes the size of its extractor.
# * **Length.** Start with `--epochs=50` for each of the two, and leave out `--learning_rate`, `--batch_size` and
#   `--warmup_epochs`, whose defaults are those of the paper. Take a network such as `--network=resnet18`. A GPU helps.
# * **Ramp.** Keep `--fool_ramp_fraction=0.53` in every run that is shorter than the paper's.
#
# ```sh
# cdc-keras train --task=extractor --dataset=folder --data_dir="my images" --image_size=128 \
#     --epochs=50 --fool_ramp_fraction=0.53 --run_dir=runs/extractor
# cdc-keras train --task=classifier --dataset=folder --data_dir="my images" --image_size=128 \
#     --network=resnet18 --epochs=50 --extractor=runs/extractor --run_dir=runs/gated
# ```
#
# If a run is stopped, the same command continues it. `docs/training.md` explains the settings and the files of a run.
