"""Sets that are larger than memory."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cdc_keras.data.on_disk import on_disk
from cdc_keras.paths import cache

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES, SIZE = 9000, 128  # 442 MB decoded
ALLOWED = 200 * 2**20  # bytes that one epoch may take beyond what a small set took
EPOCH = f"""
import resource, sys

from cdc_keras.data.folder import load_folder
from cdc_keras.data.pipeline import evaluation_batches, training_batches

def epoch(folder, memory_limit):
    like = {{"image_size": {SIZE}, "validation_fraction": 0.0, "seed": 0}}
    dataset = load_folder(folder, memory_limit=memory_limit, **like)
    plan = {{"batch_size": 64, "seed": 0, "epoch": 0, "crop_padding": 4, "flip": True}}
    seen = sum(len(labels) for _, labels in training_batches(dataset.train, {SIZE}, **plan))
    return seen + sum(len(labels) for _, labels in evaluation_batches(dataset.test, {SIZE}, batch_size=64))

small, large, memory_limit = sys.argv[1:]
epoch(small, int(memory_limit))
with open("/proc/self/status") as file:
    now = next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (now + {ALLOWED}, resource.RLIM_INFINITY))
print("seen", epoch(large, int(memory_limit)))
"""


def test_an_array_of_another_key_is_another_one():
    def fill(number):
        def write(array):
            array[:] = number
            return {"number": np.array(number)}

        return write

    made = [on_disk("numbers", lambda key=key: key, (2, 3), np.uint8, fill(i)) for i, key in enumerate("aba")]
    assert [array.tolist() for array, _ in made] == [[[i] * 3] * 2 for i in (0, 1, 0)]
    assert [int(beside["number"]) for _, beside in made] == [0, 1, 0]
    assert not made[0][0].flags.writeable


def test_what_a_killed_process_had_begun_is_removed_after_a_day():
    begun = {hours: cache() / "decoded" / f"partial-{hours}" for hours in (23, 25)}
    for hours, folder in begun.items():
        folder.mkdir(parents=True)
        for path in (folder / "array.npy", folder):
            path.touch()
            os.utime(path, (time.time() - 3600 * hours,) * 2)

    on_disk("numbers", lambda: "c", (1,), np.uint8, lambda array: {})
    assert begun[23].is_dir() and not begun[25].exists()


@pytest.mark.long
@pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="only Linux limits a process by its data")
@pytest.mark.parametrize("memory_limit", [0, 2**40], ids=["on disk", "in memory"])
def test_a_set_larger_than_a_process_may_hold_is_trained_on_from_disk_alone(memory_limit, tmp_path):
    one = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)).save(one)
    for name, count in (("small", 200), ("large", IMAGES)):
        for category in "ab":
            (tmp_path / name / category).mkdir(parents=True)
            for i in range(count // 2):
                os.link(one, tmp_path / name / category / f"{i}.png")
    command = [sys.executable, "-c", EPOCH, tmp_path / "small", tmp_path / "large", str(memory_limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if memory_limit:
        assert "Unable to allocate" in done.stderr  # so the limit is one
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        trained, scored = IMAGES * 4 // 5, IMAGES // 5
        assert done.stdout.split() == ["seen", str(trained // 64 * 64 + scored)]
