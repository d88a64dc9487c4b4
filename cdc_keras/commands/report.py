"""cdc-keras report: report.html of a run; with --images, what a classifier sees in image files."""

from cdc_keras.choices import record_name
from cdc_keras.data.class_folders import ENDINGS, entries, is_image
from cdc_keras.errors import UsageError, UserError
from cdc_keras.paths import expanded
from cdc_keras.report import page, strips


def main(values):
    """Writes the page of a run, or the strip of images, and prints where it is."""
    _check(values)
    if not values.images:
        names = ("plain", "data_dir", "groups", "backgrounds", "out")
        written = page.report(values.model, **{name: values[name].value for name in names})
    else:
        written, paths = expanded(values.out or "strip.png"), _files(values.images)
        if values.saved_model is not None:
            strips.of_saved_model(values.saved_model, paths, written, count=values.count)
        else:
            strips.of_classifier(values.model, paths, written, count=values.count, plain=values.plain, site=values.site)
    print(f"written: {written}")


def _check(values):
    """Raises UsageError for flags that are missing, or that would do nothing."""
    if (values.model is None) == (values.saved_model is None):
        raise UsageError("give either --model=runs/... or zoo:<name>, or --saved_model=models/<name>/<version>")
    if not values.images and (values.saved_model or record_name(values.model)):
        raise UsageError("say which images to look at with --images, files or a folder; only a run has a report")
    useless = ("data_dir", "groups", "backgrounds") if values.images else ("site",)
    useless += ("plain", "site") if values.saved_model else ()
    if given := [name for name in useless if values[name].value]:
        place = "for --saved_model" if values.saved_model else "with --images" if values.images else "for a report"
        raise UsageError(f"--{given[0]} does nothing {place}; leave it out")


def _files(images):
    """Returns the paths that --images says; of one folder its image files."""
    paths = [expanded(image) for image in images]
    if len(paths) == 1 and paths[0].is_dir():
        files = [path for path in entries(paths[0]) if is_image(path)]
        if not files:
            raise UserError(f"{paths[0]} holds no image ({ENDINGS}); name another folder")
        return files
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(
            f"there is no image {missing[0]}; --images are files separated by commas, or one folder; "
            """a name with a comma stands in double quotes inside single ones, --images='"a, b.jpg",c.jpg'"""
        )
    return paths
