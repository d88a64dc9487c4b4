"""From the rows of a table to runs: what is trained, with which settings, and what has to be there before."""

import dataclasses
import pathlib

from cdc_keras import flags, zoo
from cdc_keras.choices import ZOO
from cdc_keras.config import PATHS, RunConfig
from cdc_keras.errors import UserError
from cdc_keras.runs.folder import FREE_TO_CHANGE
from cdc_keras.tables.systems import CONTEXTS, SYSTEMS, Row

# Names of TFDS -> what the paper's flagfiles are called, where that is not the same.
FLAGFILES = {"imagenet_resized/32x32": "imagenet32", "imagenet2012": "imagenet"}


@dataclasses.dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: its folder below that of all runs.
        config: a `RunConfig`.
        row: the `Row` it is a seed of; None for a context.
        needs: names of the jobs that come first.
    """

    name: str
    config: RunConfig
    row: Row | None = None
    needs: tuple[str, ...] = ()


def read_flags(path):
    """Returns the `RunConfig` that a flagfile says.

    Raises:
        UserError: there is no such file, or a line of it is no setting.
    """
    try:
        return flags.config_from_flags(flags.parse(flags.train, [f"--flagfile={path}"]))
    except UserError as error:
        raise UserError(f"the settings of the flagfile {path} cannot be read: {error}") from None


def flagfile_of(dataset, task):
    """Returns the path of the flagfile with the paper's settings for a data set and a task."""
    name = FLAGFILES.get(dataset, dataset)
    return flags.CONFIGS / "paper" / (f"{name}_extractor.flags" if task == "extractor" else f"{name}.flags")


def jobs_of(rows, *, seeds, classifier, extractor, runs_dir, folder, released=False):
    """Returns the `Job`s of rows, those first that others need.

    Contexts and teachers are trained once, with seed 0, as the paper trains an extractor once per data set.

    Args:
        rows: `Row`s.
        seeds: of every row.
        classifier: `RunConfig` of a plain network, the recipe of all.
        extractor: `RunConfig` of the contexts.
        runs_dir: folder of all runs.
        folder: the name below it of the folder of these.
        released: take the zoo's extractors, `<dataset>` and `<dataset>_<context>`, where there are some.
    """
    found = {}

    def add(job):
        return found.setdefault(job.name, job)

    def context(name):
        """Returns (what --extractor says, names of jobs to wait for)."""
        record = classifier.dataset if name == "cdcgm" else f"{classifier.dataset}_{name}"
        if released and record in zoo.names():
            return f"{ZOO}{record}", ()
        base = dataclasses.replace(classifier, task="extractor") if name == "dm" else extractor
        job = add(Job(f"{folder}/context-{name}", dataclasses.replace(base, **CONTEXTS[name])))
        return str(pathlib.Path(runs_dir) / job.name), (job.name,)

    def row_job(row, seed):
        system, needs = SYSTEMS[row.system], ()
        changes = {"network": row.network, "seed": seed, "test_every_epoch": True, **system.settings}
        if system.context is not None:
            changes["extractor"], needs = context(system.context)
        if row.teacher:
            teacher = row_job(Row(row.teacher, "plain"), 0)
            changes["teacher"], needs = str(pathlib.Path(runs_dir) / teacher.name), (*needs, teacher.name)
        return add(Job(f"{folder}/{row.name}/seed{seed}", dataclasses.replace(classifier, **changes), row, needs))

    for seed in seeds:  # all rows of a seed before the next: a table that is cut short has every row
        for row in rows:
            row_job(row, seed)
    return list(found.values())


def settings_of(config):
    """Returns the settings that decide what a run gives, but for those of its places, as a JSON-ready dict.

    Args:
        config: a resolved `RunConfig`.
    """
    ignored = {*FREE_TO_CHANGE, *PATHS}
    if config.dataset == "folder":  # which data it is, nothing else says
        ignored.remove("data_dir")
    return {k: _plain(v) for k, v in config.effective().items() if k not in ignored}


def is_of(record, job, jobs, corrupted_images):
    """Whether a record is that of the run a job asks for.

    Args:
        record: what `scores.record` returned.
        job: a `Job` of a row.
        jobs: {name: `Job`}; those that this one needs are among them.
        corrupted_images: as for `scores.record`.
    """
    if (record["row"], record["corrupted_images"]) != (job.row.name, corrupted_images):
        return False
    if not _same(record["settings"], job.config):
        return False
    needed = [jobs[name] for name in job.needs]
    teacher = next((need.config for need in needed if need.row is not None), None)
    if not _same(record["teacher"] and record["teacher"]["settings"], teacher):
        return False
    source = job.config.extractor
    if source is not None and source.startswith(ZOO):
        return record["context"]["sha256"] == zoo.info(source.removeprefix(ZOO)).weights.sha256
    context = next((need.config for need in needed if need.row is None), None)
    return _same(record["context"] and record["context"]["settings"], context)


def _same(stored, config):
    """Whether stored settings are those of a config, or both are None; one that came later has its default in them."""
    if stored is None or config is None:
        return stored is None and config is None
    asked = settings_of(config.resolved(stored["image_size"]))
    default = {field.name: _plain(field.default) for field in dataclasses.fields(config)}
    return {**{name: default[name] for name in asked}, **stored} == asked


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
