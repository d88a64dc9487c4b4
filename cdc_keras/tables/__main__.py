"""python -m cdc_keras.tables --table=2 ...: trains and scores every row of a table of the paper, and writes it."""

import sys

from absl import app, flags

from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines the flags in `values`, an `absl.flags.FlagValues`."""
    text = lambda name, default, help: flags.DEFINE_string(name, default, help, values)  # noqa: A002, E731
    number = lambda name, default, low, help: flags.DEFINE_integer(  # noqa: A002, E731
        name, default, help, lower_bound=low, flag_values=values
    )
    flags.DEFINE_multi_integer("table", None, "which, 1 to 6; give it again for more", 1, 6, values)
    text("dataset", None, "data set; the table's first if not given (paper: Tables 1 to 3 cifar10 and cifar100)")
    text("data_dir", None, "where the data are; TFDS' own default folder if not given")
    number("seeds", 3, 1, "runs of every row, with seeds 0, 1, ... (paper: 3)")
    number(
        "epochs", None, 1, "of every row, in place of its flagfile's (paper: CIFAR 200, ImageNet32 40, ImageNet 100)"
    )
    flags.DEFINE_list("rows", [], "only these rows, as ours or vgg13+ours; all if not given", values)
    flags.DEFINE_list("networks", [], "backbones in place of the table's, such as vgg13_slim,resnet20", values)
    text("classifier_flags", None, "flagfile with the recipe of all rows; configs/paper/<dataset>.flags if not given")
    text("extractor_flags", None, "flagfile of the contexts; configs/paper/<dataset>_extractor.flags if not given")
    flags.DEFINE_enum(
        "extractors", "train", ("train", "zoo"), "train the contexts, or take the zoo's where it has them", values
    )
    number("corrupted_images", 10_000, 0, "test images scored under each of 75 corruptions; 0 leaves them out")
    number("at_once", None, 1, "runs at a time; on a CPU as many as cores, up to 8, if not given, else one a GPU")
    text("runs_dir", "runs/tables", "folder for the runs, one below it for each data set")
    text("out", None, "folder for the tables and records.json; runs_dir/<dataset> if not given")
    flags.DEFINE_bool(
        "smoke",
        False,
        "try every row with a small network, few images and one epoch, on shapes; means nothing",
        values,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras.cli import quiet_libraries
    from cdc_keras.tables.work import tables  # this imports the backend, which --help need not wait for

    quiet_libraries()
    values = flags.FLAGS
    defined = flags.FlagValues()
    define(defined)
    asked = {name: values[name].value for name in defined if name in values}
    try:
        failed = tables(asked.pop("table"), **asked)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from there")
    if failed:
        sys.exit("error: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    print(f"the tables are in {values.out or f'{values.runs_dir}/<dataset>'}")


if __name__ == "__main__":
    define()
    app.run(main)
