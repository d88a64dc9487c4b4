"""One process that trains and scores runs of a table: python -m cdc_keras.tables.worker --runs_dir=... JOB ...

A job is the name of a run folder; beside it lies its flagfile, `<name>.flags`.
"""

import os
import pathlib
import sys

from absl import app, flags

from cdc_keras.backend import start_keras
from cdc_keras.cli import messages, quiet_imports, quiet_libraries


def main(argv):
    values = flags.FLAGS
    quiet_libraries()
    if values.cores:  # before the backend counts them
        os.sched_setaffinity(0, {int(core) for core in values.cores})
    with messages(), quiet_imports():
        start_keras(lean=True)
        import keras

        from cdc_keras.runs.training import train
        from cdc_keras.tables.jobs import read_flags
        from cdc_keras.tables.scores import score_run

    folder = pathlib.Path(values.runs_dir)
    with messages():
        for name in argv[1:]:
            run = train(read_flags(folder / f"{name}.flags"), folder / name, pictures=False)
            if not run.finished:
                sys.exit(130)
            if not run.config().task == "extractor":
                score_run(run, run.path.parent.name, corrupted_images=values.corrupted_images)
            keras.utils.clear_session()


if __name__ == "__main__":
    flags.DEFINE_string("runs_dir", None, "folder of all runs", required=True)
    flags.DEFINE_list("cores", [], "CPU cores this process may use; all if not given")
    flags.DEFINE_integer("corrupted_images", 0, "test images scored under every corruption", lower_bound=0)
    app.run(main)
