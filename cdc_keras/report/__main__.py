"""python -m cdc_keras.visualize --run_dir=runs/...: report.html of a run; with --images, what a network looks at."""

import pathlib
import sys

from absl import app, flags

from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines the flags in `values`, an `absl.flags.FlagValues`."""
    text = lambda name, help: flags.DEFINE_string(name, None, help, values)  # noqa: A002, E731
    text("run_dir", "folder of the run to report on, or of the classifier that looks at --images")
    flags.DEFINE_alias("run", "run_dir", values)
    text("zoo", "a classifier of the zoo that looks at --images instead")
    text("saved_model", "a version of an exported classifier, models/<name>/<version>, instead")
    flags.DEFINE_list("images", [], "image files, or one folder of them", values)
    text(
        "plain",
        "the plain counterpart of a gated classifier, drawn beside it: a run folder; for --images also zoo:<name>",
    )
    text("site", "the gated layer to look into; the shallowest if not given")
    text("data_dir", "for a report: where the data are now, if not where they were in training")
    text("out", "PNG to write; strip.png if not given")
    flags.DEFINE_integer("count", 8, "at most so many images", lower_bound=1, flag_values=values)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    values = flags.FLAGS
    try:
        sources = {name: values[name].value for name in ("run_dir", "zoo", "saved_model") if values[name].value}
        if len(sources) != 1:
            raise UserError("give one of --run_dir=runs/..., --zoo=<name> and --saved_model=models/<name>/<version>")
        if not values.images and values.run_dir is None:
            raise UserError("say which images to look at with --images, files or a folder; only a run has a report")
        no_use = ("data_dir",) if values.images else ("site", "out")
        no_use += ("plain", "site") if values.saved_model else ()
        if given := [name for name in no_use if values[name].value is not None]:
            what = "for --saved_model" if values.saved_model else "with --images" if values.images else "for a report"
            raise UserError(f"--{given[0]} does nothing {what}; leave it out")
        paths = _files(values.images)[: values.count]
        # These import the backend, which --help need not wait for.
        from cdc_keras.cli import quiet_libraries
        from cdc_keras.report import page, strips

        quiet_libraries()
        if not paths:
            written = page.report(values.run_dir, plain=values.plain, data_dir=values.data_dir)
        else:
            written = pathlib.Path(values.out or "strip.png")
            if values.saved_model is not None:
                strips.of_saved_model(values.saved_model, paths, written)
            else:
                source = values.run_dir or f"zoo:{values.zoo}"
                strips.of_classifier(source, paths, written, plain=values.plain, site=values.site)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    print(f"written: {written}")


def _files(images):
    """Returns the paths that --images says; of one folder its image files."""
    paths = [pathlib.Path(image).expanduser() for image in images]
    if len(paths) == 1 and paths[0].is_dir():
        from cdc_keras.data.folder import SUFFIXES  # beside the backend, which --help need not wait for

        found = sorted(path for path in paths[0].iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{paths[0]} holds no image ({', '.join(sorted(SUFFIXES))}); name another folder")
        return found
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"there is no image {missing[0]}; --images are files separated by commas, or one folder")
    return paths


if __name__ == "__main__":
    define()
    app.run(main)
