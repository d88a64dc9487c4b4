"""python -m cdc_keras.audit --run_dir=runs/...: how much of the category can be read from an extractor's T."""

import sys

from absl import app, flags

from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines the flags in `values`, an `absl.flags.FlagValues`."""
    text = lambda name, help: flags.DEFINE_string(name, None, help, values)  # noqa: A002, E731
    text("run_dir", "folder of the finished extractor run to audit")
    text("extractor", "the extractor to audit instead, of the zoo: zoo:<name>")
    flags.DEFINE_list("rivals", [], "extractors to probe beside it, as name=run folder or name=zoo:<name>", values)
    text("classifier", "classifier that judges what is decoded under another category: a run folder, or zoo:<name>")
    text("data_dir", "where the data are now, if not where they were in training")
    text("out", "folder for audit.json, audit.md and audit.png; the run folder if not given")
    flags.DEFINE_integer("limit", 10_000, "use at most this many test images", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "seeds the halves and the probes", lower_bound=0, flag_values=values)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras.audit.audit import audit, folder  # this imports the backend, which --help need not wait for
    from cdc_keras.cli import quiet_libraries

    quiet_libraries()
    values = flags.FLAGS
    try:
        if (values.run_dir is None) == (values.extractor is None):
            raise UserError("give the extractor to audit either as --run_dir=runs/... or as --extractor=zoo:<name>")
        source = values.run_dir or values.extractor
        audit(
            source,
            rivals=_rivals(values.rivals),
            classifier=values.classifier,
            data_dir=values.data_dir,
            out=values.out,
            limit=values.limit,
            seed=values.seed,
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    out = folder(source, values.out)
    print((out / "audit.md").read_text())
    print(f"audit.json, audit.md and audit.png are in {out}")


def _rivals(pairs):
    """Returns {name: source} of texts "name=source"."""
    rivals = {}
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (equals and source) or name in rivals:
            raise UserError(f"rivals are name=run folder, each name once, not {pair!r}; separate them by commas")
        rivals[name] = source
    return rivals


if __name__ == "__main__":
    define()
    app.run(main)
