# %% [markdown]
# # Reproduce a row of Table 2, with its controls
#
# **One command trains a row of a table of the paper, and beside it the rows that it has to beat.** Here it trains tiny
# networks for seconds. At this length nothing can be told from noise, and the table shows that, too. All this takes
# one to three minutes on two CPU cores.
#
# An *extractor* is a network that turns an image x into its context T, a feature map that should describe everything
# about x but its category. A *gate* inside a classifier reads T. It turns features down by an attention map M, with one
# number for each position, and by channel weights C. It also adds R, a small residual unit.
#
# Table 2 of the paper asks what the parts of the gate are worth. We take its row "ours", the whole method, and set
# three rows beside it:
#
# | row | what is trained | the question it answers |
# |---|---|---|
# | `plain` | the classifier without a gate | does the gate gain anything? |
# | `ours` | the classifier with a gate that reads T | |
# | `shuffled` | the same, but the gate reads the T of another image | does the gate need the T of *this* image? |
# | `untrained` | the same, but the extractor was never trained | does the gate need what the extractor has *learned*? |
#
# The last two rows are *controls*, and the paper does not have them. Their networks have as many weights as `ours`. So
# if they gain as much, more weights are enough, and the context explains nothing.

# %%
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow starts: it says less

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from cdc_keras.data.shapes import shapes
from cdc_keras.tables.assemble import scores_of
from cdc_keras.tables.markdown import gain, spread
from cdc_keras.tables.systems import rows
from cdc_keras.tables.table_row import read_rows

work = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## Images, and two files of settings
#
# The images are drawn: ten categories of shapes on textured backgrounds. We hand them over as arrays in
# `<data_dir>/<dataset>.npz`, as you could do with images of your own. `--dataset=shapes` would draw them by itself, but
# would score 2,000 test images again and again, which takes longer than all the training here.

# %%
learned, tested = shapes(640, seed=0), shapes(300, seed=1)
np.savez(work / "drawn.npz", x_train=learned.images, y_train=learned.labels, x_test=tested.images, y_test=tested.labels)

figure, axes = plt.subplots(1, 8, figsize=(9, 1.3), layout="constrained")
for ax, picture in zip(axes, learned.images, strict=False):
    ax.imshow(picture)
    ax.set_axis_off()
plt.show()

# %% [markdown]
# All classifiers of a table share one file of settings, and the rows change only what their names say. The extractor
# has a second file. Each line is a flag of `cdc-keras train`. We hold back no images for validation, to save time.
# Keep them, as is the default, wherever a setting is to be chosen.

# %%
(work / "classifier.flags").write_text("""
--task=classifier
--dataset=drawn
# With so few images, several trainings share a process.
--train_limit=640
--epochs=3
--batch_size=16
--learning_rate=0.02
--warmup_epochs=0
--validation_fraction=0
""")
(work / "extractor.flags").write_text("""
--task=extractor
--dataset=drawn
--train_limit=640
--epochs=1
--batch_size=16
--learning_rate=1e-3
--validation_fraction=0
# The wish to hide the category from a discriminator grows during this share of the training.
--fool_ramp_fraction=0.5
""")

# %% [markdown]
# ## The command
#
# It first trains what the rows need, here one extractor, and then every row with every seed, as many at a time as there
# are cores. If it is stopped, the same command goes on. `vgg13_w8` is VGG13 with 8 channels in its first layers instead
# of 64. `--corrupted_images=0` leaves out the test on damaged images.

# %%
command = [
    *("tables", "--table=2", "--rows=plain,ours,shuffled,untrained", "--networks=vgg13_w8", "--seeds=2"),
    *("--dataset=drawn", f"--data_dir={work}", "--corrupted_images=0", f"--runs_dir={work / 'runs'}"),
    *(f"--classifier_flags={work / 'classifier.flags'}", f"--extractor_flags={work / 'extractor.flags'}"),
    f"--out={work / 'table'}",
]
done = subprocess.run([sys.executable, "-m", "cdc_keras", *command], capture_output=True, text=True)
print(done.stdout, done.stderr if done.returncode else "")
done.check_returncode()
print("written:", ", ".join(sorted(path.name for path in (work / "table").iterdir())))

# %% [markdown]
# ## The table
#
# `table2.md` is the table for reading, with all settings and notes. `table2.json` holds the same numbers, and these are
# the main ones. Accuracies are those on the test images after the last epoch, in percent. They are given as mean and
# standard deviation over the seeds. A gain is a mean difference from `plain`, in points, with its 95% interval.

# %%
table = json.loads((work / "table" / "table2.json").read_text())
print(f"{'row':54} {'accuracy':>15}   gain over plain")
for row in table["rows"]:
    print(f"{row['title']:54} {spread(row['scores']['last']):>15}   {gain(row.get('gains', {}).get('last'))}")

print("\nours minus")
for difference in table["differences"]:
    print(f"  {difference['minus']:20} {gain(difference['last'])}")

picture = plt.imread(work / "table" / "table2.png")
plt.figure(figsize=(9, 9 * picture.shape[0] / picture.shape[1]), layout="constrained")
plt.imshow(picture)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Paired seeds
#
# A seed decides the order of the images, how they are flipped and cropped, and the first weights of the layers that two
# networks share. Some seeds are lucky for every row. So the table compares row by row *within* a seed, and then
# averages these differences. `rows.json` has every run on its own. Each line of the picture is one seed.

# %%
runs = read_rows(work / "table")
systems = ("plain", "ours", "shuffled", "untrained")
accuracy = {(run.row.split("+")[1], run.seed): scores_of(run)["last"] for run in runs}
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for seed in sorted({run.seed for run in runs}):
    ax.plot(systems, [accuracy[system, seed] for system in systems], "o-", label=f"seed {seed}")
ax.set(ylabel="accuracy on test images, %", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What an interval says
#
# The interval answers: how far could this mean difference be off, as other seeds would have given others? It is
# Student's: so many standard deviations of the differences to either side of the mean.

# %%
for n in (2, 3, 5, 10):
    print(f"{n:2} seeds: {stats.t.ppf(0.975, n - 1) / n**0.5:.2f} standard deviations to either side")

# %% [markdown]
# Two seeds say next to nothing, which is why the command takes three by default. Here they keep the tutorial short, and
# the intervals are tens of points wide. Keep three more things in mind:
#
# * **An interval that includes zero** does not show that there is no gain. It shows that these runs cannot tell.
# * **One interval in twenty** excludes zero by chance alone. The more rows, the more often that happens, and the table
#   does not correct for it.
# * **The interval covers seeds**, and nothing else. All rows share the test images and the one trained extractor.
#
# ## Why these two controls matter
#
# The paper claims that `ours` is better than `plain`, because of the context. But the gate has weights of its own, so a
# gain may come from these. `shuffled` and `untrained` have those weights, too. If all three gain alike, the context of
# the image has not been shown to do anything.
#
# That is what happened in longer runs on CIFAR-100. There the gate gained on the plain ResNet-20, and both controls
# gained as much. `docs/controls.md` explains all controls, and `docs/does_it_pay.md` says what they decided.
#
# ## The real thing
#
# The paper trains for 200 epochs, and its extractor for 600. The flagfiles of that length come with the library, so the
# command is short. Its runs are not:

# %%
whole = rows(2)
networks = " and ".join(sorted({row.backbone for row in whole}))
print(f"With our controls, Table 2 has {len(whole)} rows, of {networks}. Three seeds make {3 * len(whole)} trainings.")

# %% [markdown]
# ```sh
# cdc-keras tables --table=2 --dataset=cifar100 --data_dir=$HOME/tensorflow_datasets
# ```
#
# This is meant for GPUs, and we have not run it. On two CPU cores the extractor alone would take about ten hours, and
# the classifiers months. What a CPU can carry is a quarter of the width and 10 epochs. That took us about ten hours of
# one core for the whole table, and `docs/tables.md` shows the result. To make only the rows of this tutorial at that
# length, with the extractor that is released:
#
# ```sh
# cdc-keras tables --table=2 --dataset=cifar100 --data_dir=$HOME/tensorflow_datasets --extractors=zoo \
#     --networks=vgg13_slim --rows=plain,ours,shuffled,untrained \
#     --classifier_flags=configs/cifar100_short.flags --corrupted_images=0
# ```
