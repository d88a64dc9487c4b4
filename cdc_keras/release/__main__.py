"""python -m cdc_keras.zoo: lists the records of the zoo and verifies them, every number on their cards included."""

import sys

from absl import app, flags

from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines the flags in `values`, an `absl.flags.FlagValues`."""
    flags.DEFINE_string("data_dir", None, "where the data are; TFDS' own default folder if not given", values)
    flags.DEFINE_list("names", [], "records to verify; all if not given", values)
    flags.DEFINE_bool("numbers", True, "compute scores and audits again, which takes minutes to hours", values)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras import zoo
    from cdc_keras.cli import quiet_libraries
    from cdc_keras.release.verify import verify  # this imports the backend, which --help need not wait for
    from cdc_keras.zoo import files

    quiet_libraries()
    values = flags.FLAGS
    try:
        print(f"{len(zoo.names())} records in {files.current()}", flush=True)
        for name in zoo.names():
            print(f"  {name}", flush=True)
        problems = verify(values.names or None, data_dir=values.data_dir, numbers=values.numbers)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))
    if values.numbers:
        print("verified: files, cards, networks, golden outputs, and all scores and audits, computed again")
    else:
        print("verified: files, cards, networks, golden outputs; scores and audits were not computed again")


if __name__ == "__main__":
    define()
    app.run(main)
