"""Running the jobs of a table: several at a time, each in a process of its own, those first that others wait for."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

from cdc_keras.devices import precision
from cdc_keras.errors import UserError
from cdc_keras.progress import LOG_INTERVAL, Bar, say
from cdc_keras.runs.folder import RunFolder, flagfile
from cdc_keras.tables.scores import stored_row
from cdc_keras.weights import write_text

MOST_AT_ONCE = 8  # on a CPU; each holds its data set in memory
LOG = "log.txt"


@dataclasses.dataclass
class _Worker:
    """A process at work on some jobs.

    Attributes:
        process: the `subprocess.Popen`.
        jobs: what it does, in order.
        place: what it has of the machine.
        log: the file its output goes to.
        log_start: bytes that were in it before.
    """

    process: subprocess.Popen
    jobs: list
    place: dict
    log: pathlib.Path
    log_start: int = 0


def places(count=None):
    """Returns what each of several processes may use, as dicts of "gpu", or of "cores".

    Args:
        count: how many on a CPU, at most one a core; by default as many, up to `MOST_AT_ONCE`: with operations as small
            as these, a process a core does more than one on all. Where there are GPUs, each has one process.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = sorted(pathlib.Path("/proc/driver/nvidia/gpus").glob("*"))
    gpus = map(str, range(len(devices))) if visible is None else visible.split(",")
    gpus = [gpu for gpu in gpus if gpu not in ("", "-1")]
    if gpus:
        return [{"gpu": gpu} for gpu in gpus[:count]]
    if not hasattr(os, "sched_getaffinity"):
        return [{}]
    cores = sorted(os.sched_getaffinity(0))
    count = min(count or MOST_AT_ONCE, precision.cores())
    return [{"cores": cores[i::count]} for i in range(count)]


def run(jobs, runs_dir, done, *, at_once=None, corrupted_images=0, share=False):
    """Trains and scores `Job`s that are not done, and returns {name: why} of those that failed.

    A run that was stopped goes on where it was. Ctrl-C, or SIGTERM, has every run save its state first.

    Args:
        jobs: `Job`s; what one needs is among them, or done.
        runs_dir: folder of all runs.
        done: called with each `Job` of a row that is done, and its `TableRow`.
        at_once: processes at a time, as for `places`.
        corrupted_images: as for `scores.score_run`.
        share: let one process do several jobs, for those too short to start one for each.

    Raises:
        KeyboardInterrupt: it was stopped; everything is saved.
    """
    folder, waiting, finished, failed = pathlib.Path(runs_dir), {job.name: job for job in jobs}, set(), {}
    free, busy, shown = places(at_once), [], 0.0
    bar = Bar(100, "%", initial=_percent(_shares(jobs, folder, corrupted_images)))
    stops = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, signal.default_int_handler) for s in stops}
    try:
        while waiting or busy:
            for name in [n for n, job in waiting.items() if any(need in failed for need in job.needs)]:
                failed[name] = f"needs {', '.join(need for need in waiting.pop(name).needs if need in failed)}"
            ready = [job for job in waiting.values() if all(n in finished or n not in waiting for n in job.needs)]
            ready = [job for job in ready if not any(need in _names(busy) for need in job.needs)]
            while free and ready:
                batch = _fair(ready, _names(busy), len(free) + len(busy)) if share else ready[:1]
                ready = [job for job in ready if job not in batch]
                for job in batch:
                    del waiting[job.name]
                busy.append(_start(batch, folder, free.pop(0), corrupted_images))
            time.sleep(0.2)
            for worker in [w for w in busy if w.process.poll() is not None]:
                busy.remove(worker)
                free.append(worker.place)
                undone = [job for job in worker.jobs if not _is_done(job, folder, corrupted_images)]
                for job in worker.jobs:
                    if job not in undone:
                        finished.add(job.name)
                        if job.row is not None:
                            done(job, stored_row(RunFolder(folder / job.name), corrupted_images))
                if undone:
                    first, *later = undone
                    failed[first.name] = _why(worker)
                    say(f"{first.name}: {failed[first.name]}")
                    waiting |= {job.name: job for job in later}
            if time.monotonic() - shown > LOG_INTERVAL:
                shown = time.monotonic()
                _show(bar, _shares(jobs, folder, corrupted_images), busy)
    except BaseException:
        _stop(busy)
        raise
    finally:
        bar.close()
        for s, handler in before.items():
            signal.signal(s, handler)
    return failed


def _fair(ready, under_way, lanes):
    """Returns those of the jobs that one process gets, so that each of several gets about as many."""
    count = -(-(len(ready) + len(under_way)) // lanes)
    return ready[:: -(-len(ready) // count)]


def _names(busy):
    return {job.name for worker in busy for job in worker.jobs}


def _start(batch, folder, place, corrupted_images):
    """Returns the `_Worker` that begins with a batch of jobs."""
    for job in batch:
        path = folder / f"{job.name}.flags"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {path.parent}: {error.strerror}; choose another runs_dir") from error
        write_text(path, flagfile(job.config))
    log = (folder / batch[0].name).with_suffix(f".{LOG}")
    command = [sys.executable, "-m", "cdc_keras.tables.worker", f"--runs_dir={folder}"]
    command.append(f"--corrupted_images={corrupted_images}")
    if "cores" in place:
        command.append(f"--cores={','.join(map(str, place['cores']))}")
    environment = dict(os.environ)
    if "gpu" in place:
        environment["CUDA_VISIBLE_DEVICES"] = place["gpu"]
    with log.open("a", encoding="utf-8") as out:
        log_start = out.tell()
        process = subprocess.Popen(
            [*command, "--", *(job.name for job in batch)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches it through us, once
        )
    return _Worker(process, batch, place, log, log_start)


def _is_done(job, folder, corrupted_images):
    """Returns whether what is in a job's folder is its run, finished and, of a row, scored."""
    run = RunFolder(folder / job.name)
    if not run.finished:
        return False
    try:
        run.check(job.config.resolved(run.config().image_size))
    except UserError:  # of other settings, as its process will say
        return False
    return job.row is None or stored_row(run, corrupted_images) is not None


def _why(worker):
    """Returns why a worker ended before its work was done, in one line."""
    text = worker.log.read_bytes()[worker.log_start :].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = max((i for i, line in enumerate(lines) if line.startswith("error:")), default=len(lines) - 1)
    reason = " ".join(lines[first:]).removeprefix("error: ") or "no output"  # an error may go on for some lines
    return f"exit code {worker.process.returncode}: {reason} (all of it: {worker.log})"


def _stop(busy):
    """Has every worker save what it has, and waits until all have."""
    print("saving; the same command goes on from there", file=sys.stderr)
    for worker in busy:
        worker.process.terminate()  # training saves; scoring, which takes a minute, is done again
    for worker in busy:
        worker.process.wait()


def _shares(jobs, folder, corrupted_images):
    """Returns {name of a job: which share of it is done, from 0 to 1}."""
    return {job.name: 1.0 if _is_done(job, folder, corrupted_images) else _trained(job, folder) for job in jobs}


def _trained(job, folder):
    """Returns which share of its epochs a job has trained, below 1: it has to be scored then."""
    run = RunFolder(folder / job.name)
    return min(len(run.rows()) / run.config().epochs, 0.99) if run.config_path.is_file() else 0.0


def _percent(shares):
    return round(100 * sum(shares.values()) / max(len(shares), 1), 1)


def _show(bar, shares, busy):
    """Brings the progress bar to the `shares` of the jobs that are done, and names those at work."""
    at_work = (next((job for job in worker.jobs if shares[job.name] < 1), worker.jobs[-1]) for worker in busy)
    bar.n, bar.metrics = _percent(shares), {job.name: f"{shares[job.name]:.0%}" for job in at_work}
    bar.set_description_str(f"{sum(share == 1 for share in shares.values())} of {len(shares)} runs")
