"""From the rows of a table to runs: what is trained, with which settings, and what has to be there before."""

import dataclasses
import pathlib

from cdc_keras import flags, zoo
from cdc_keras.choices import AUTO, ZOO, record_name
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
        config = flags.config_from_flags(flags.parse(flags.train, [f"--flagfile={path}"]))
    except UserError as error:
        raise UserError(f"the settings of the flagfile {path} cannot be read: {error}") from None
    if config.precision == AUTO:
        raise UserError(f"{path} has precision=auto, and the runs of a table share one: name it")
    return config


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
    jobs = {}

    def add(job):
        return jobs.setdefault(job.name, job)

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
    return list(jobs.values())


def settings_of(config):
    """Returns the settings that decide what a run gives, but for those of its places, as a JSON-ready dict.

    Args:
        config: a resolved `RunConfig`.
    """
    ignored = {*FREE_TO_CHANGE, *PATHS}
    if config.dataset == "folder":  # which data it is, nothing else says
        ignored.remove("data_dir")
    return {k: _plain(v) for k, v in config.effective().items() if k not in ignored}


def is_of(run, job, jobs, corrupted_images):
    """Returns whether a `TableRow` is the run that a job asks for.

    Args:
        run: the `TableRow`.
        job: a `Job` of a row.
        jobs: {name: `Job`}; those that this one needs are among them.
        corrupted_images: as for `scores.score_run`.
    """
    if (run.row, run.corrupted_images) != (job.row.name, corrupted_images):
        return False
    if not _same(run.settings, job.config):
        return False
    needed = [jobs[name] for name in job.needs]
    teacher = next((need.config for need in needed if need.row is not None), None)
    if not _same(run.teacher and run.teacher["settings"], teacher):
        return False
    if job.config.extractor is not None and (name := record_name(job.config.extractor)):
        return run.context["sha256"] == zoo.info(name).weights.sha256
    context = next((need.config for need in needed if need.row is None), None)
    return _same(run.context and run.context["settings"], context)


def _same(stored, config):
    """Returns whether stored settings are those of a config, or both None; a setting added later has its default."""
    if stored is None or config is None:
        return stored is None and config is None
    wanted = settings_of(config.resolved(stored["image_size"]))
    default = {field.name: _plain(field.default) for field in dataclasses.fields(config)}
    return {**{name: default[name] for name in wanted}, **stored} == wanted


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
