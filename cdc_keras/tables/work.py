"""Tables 1 to 6 of the paper, row by row: what is trained, how it is scored, and what is said of it.

cdc-keras tables --table=2 --data_dir=... trains every row with three seeds, as many at a time as there are
devices, and writes the table as Markdown, JSON and a plot. The same command goes on where it was stopped.
"""

import dataclasses
import json
import sys

from cdc_keras.errors import UserError
from cdc_keras.paths import expanded
from cdc_keras.tables import assemble, schedule, smoke
from cdc_keras.tables.jobs import flagfile_of, is_of, jobs_of, read_flags, settings_of
from cdc_keras.tables.markdown import markdown
from cdc_keras.tables.paper import TABLES
from cdc_keras.tables.plot import plot
from cdc_keras.tables.systems import rows as rows_of
from cdc_keras.tables.table_row import ROWS, read_rows, write_rows
from cdc_keras.weights import write_text

# What of the recipe a table says; all other settings of a run stand in its `TableRow`.
RECIPE = (
    *("recipe", "epochs", "batch_size", "learning_rate", "warmup_epochs", "learning_rate_drops"),
    *("learning_rate_factor", "validation_fraction", "precision"),
)
SHORT = 10_000  # images over all epochs: training on so few takes about as long as starting a process


def tables(numbers, *, runs_dir, out=None, smoke=False, **settings):
    """Trains and scores what is missing of some tables, writes them, and returns {run: why} of those that failed.

    A run that `rows.json` in `out` already holds, with the same settings, is not trained again.

    Args:
        numbers: of the tables; all in a smoke test, if None.
        runs_dir: folder for the runs, in one folder for each data set.
        out: folder for the tables and the file of their runs; that of the runs if None.
        smoke: try every row, far too shortly to mean anything.
        **settings: as the flags of `cdc-keras tables` say.

    Raises:
        UserError: what is asked for is not there, before anything is trained.
    """
    if not numbers and not smoke:
        raise UserError("say which table: --table=1 to --table=6")
    every = [_Work(n, expanded(runs_dir), out, smoke, **settings) for n in numbers or TABLES]
    jobs = {job.name: job for work in every for job in work.missing()}

    def done(job, run):
        for work in every:
            work.keep(job, run)

    failed = {}
    if jobs:
        share = smoke or all(_is_short(job.config) for job in jobs.values())
        images = every[0].corrupted_images
        failed = schedule.run(
            list(jobs.values()), runs_dir, done, at_once=settings["at_once"], corrupted_images=images, share=share
        )
    for work in every:
        print(f"Table {work.number} is in {work.write()}")
    return failed


def _is_short(config):
    return config.train_limit is not None and config.train_limit * config.epochs <= SHORT


class _Work:
    """One table, from its rows to its files; what is wrong with what was asked is found here, before any training."""

    def __init__(
        self,
        number,
        runs_dir,
        out,
        smoke_test,
        *,
        dataset,
        data_dir,
        seeds,
        epochs,
        rows,
        networks,
        classifier_flags,
        extractor_flags,
        extractors,
        corrupted_images,
        at_once,
    ):
        self.number, self.smoke = number, smoke_test
        self.rows, self.wanted = rows_of(number, networks=networks), rows_of(number, networks=networks, wanted=rows)
        if smoke_test:
            self.dataset = f"smoke{smoke.IMAGE_SIZES[number]}"
            seeds, released, corrupted_images = 1, False, smoke.CORRUPTED_IMAGES
            classifier, extractor = smoke.configs(number, smoke.images(runs_dir / "smoke_images"))
        else:
            self.dataset = dataset or TABLES[number].datasets[0]
            released = extractors == "zoo"
            classifier, extractor = (
                read_flags(path or flagfile_of(self.dataset, task))
                for task, path in (("classifier", classifier_flags), ("extractor", extractor_flags))
            )
            self._check(classifier, extractor)
            changes = {"data_dir": data_dir} if data_dir else {}
            extractor = dataclasses.replace(extractor, **changes)
            classifier = dataclasses.replace(classifier, **changes, **({"epochs": epochs} if epochs else {}))
        self.corrupted_images = corrupted_images
        self.out = runs_dir / self.dataset if out is None else expanded(out)
        self.recipe = self._recipe(classifier)
        jobs = jobs_of(
            self.rows,
            seeds=range(seeds),
            classifier=classifier,
            extractor=extractor,
            runs_dir=runs_dir,
            folder=self.dataset,
            released=released,
        )
        self.jobs = {job.name: smoke.small(job) if smoke_test else job for job in jobs}
        self._check_out()

    def _check(self, classifier, extractor):
        for config, task in ((classifier, "classifier"), (extractor, "extractor")):
            if config.task != task or config.dataset != self.dataset:
                raise UserError(
                    f"{task}_flags is a flagfile of task {task} on {self.dataset}, but says {config.task} on "
                    f"{config.dataset}; name another, or another dataset"
                )
            if config.extractor or config.teacher:
                raise UserError(f"{task}_flags names an extractor or a teacher, which the rows decide; leave it out")

    def _recipe(self, classifier):
        """Returns what a table says of the settings of its rows, {name: value}."""
        config = classifier.resolved(classifier.image_size or 32)
        warmup, drops = config.warmup_epochs, config.learning_rate_drops
        if warmup and drops and warmup >= drops[0] * config.epochs:
            raise UserError(
                f"a warm-up of {warmup:g} epochs does not fit before the first drop, at {drops[0]:.0%} of "
                f"{config.epochs} epochs; give more epochs, or classifier_flags with a shorter warm-up"
            )
        settings = settings_of(config)
        return {name: settings[name] for name in RECIPE}

    def _check_out(self):
        read_rows(self.out)
        path = self.out / f"table{self.number}.json"
        if path.is_file() and (dataset := json.loads(path.read_text(encoding="utf-8"))["dataset"]) != self.dataset:
            raise UserError(f"{self.out} holds Table {self.number} of {dataset}; choose another out for {self.dataset}")

    def missing(self):
        """Returns the `Job`s that were not run yet, and those that they need, and prints how many there are."""
        runs = read_rows(self.out)
        jobs = self.jobs.values()
        stored = {job.name for job in jobs if job.row and self._run_of(job, runs)}
        wanted = {job.name for job in jobs if job.row in self.wanted}
        needed = {need for name in wanted - stored for need in self.jobs[name].needs}
        missing = [job for job in jobs if job.name in (wanted - stored) | needed]
        print(
            f"Table {self.number}, {self.dataset}: {len(wanted & stored)} of {len(wanted)} runs are in {ROWS}, "
            f"{len(missing)} to do",
            file=sys.stderr,
        )
        return missing

    def keep(self, job, run):
        """Stores the `TableRow` of a job, in the place of an older one of the same, if the job is of this table.

        Raises:
            UserError: it is that of another job.
        """
        if job.name not in self.jobs:
            return
        if self._run_of(job, [run]) is None:
            raise UserError(f"{job.name} was trained with other settings than these; choose another runs_dir")
        others = [other for other in read_rows(self.out) if self._run_of(job, [other]) is None]
        self.out.mkdir(parents=True, exist_ok=True)
        write_rows(self.out, [*others, run])
        self.write()

    def _run_of(self, job, runs):
        """Returns the one of some `TableRow`s that a job asks for, None if it is not among them."""
        return next((run for run in runs if is_of(run, job, self.jobs, self.corrupted_images)), None)

    def write(self):
        """Writes the table of the runs in `rows.json`, and returns the path of its Markdown.

        It has the rows that are wanted, and those that have runs already.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        stored = read_rows(self.out)
        runs = [self._run_of(job, stored) for job in self.jobs.values() if job.row in self.rows]
        runs = [run for run in runs if run is not None]
        filled = {run.row for run in runs}
        rows = [row for row in self.rows if row in self.wanted or row.name in filled]
        table = assemble.assemble(self.number, self.dataset, rows, runs, recipe=self.recipe, smoke=self.smoke)
        name = f"table{self.number}"
        write_text(self.out / f"{name}.json", json.dumps(table, indent=1) + "\n")
        plot(table, self.out / f"{name}.png")
        path = self.out / f"{name}.md"
        write_text(path, markdown(table))
        return path
