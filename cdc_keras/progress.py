"""How far a long job is, with one look everywhere: tqdm's bar on a terminal, a line now and then in a log file."""

import sys

import tqdm

TERMINAL = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{remaining} left, {rate_noinv_fmt}{postfix}]"
LOG_INTERVAL = 30  # seconds between two lines in a log file
DELAY = 2  # seconds within which what is done shows nothing
LOG = "{desc}: {n_fmt}/{total_fmt}{unit}, {remaining} left, {rate_noinv_fmt}{postfix}"


class Bar(tqdm.tqdm):
    """A progress bar, rewritten every second on a terminal; elsewhere a line about every half minute.

    What is done within two seconds shows nothing.

    Attributes:
        metrics: {name: number, scalar tensor or text} shown behind the bar. Tensors are fetched from the device only
            when the bar is drawn, so that setting them costs nothing.

    Args:
        total: units of the whole job.
        unit: what is counted, such as "images".
        desc: words before the numbers.
        items: what iterating over the bar gives, one for each unit, if anything does.
        initial: units that were done before; they do not count for the speed.
        shown: False shows nothing.
    """

    monitor_interval = 0  # no thread of tqdm's own

    def __init__(self, total, unit, desc="", *, items=None, initial=0, shown=True):
        self.metrics = {}
        self.terminal = terminal = sys.stderr.isatty()
        super().__init__(
            items,
            total=total,
            unit=f" {unit}",
            desc=desc,
            initial=initial,
            disable=not shown,
            file=sys.stderr,
            bar_format=TERMINAL if terminal else LOG,
            mininterval=1 if terminal else LOG_INTERVAL,
            miniters=1,
            smoothing=0,
            delay=DELAY,
            leave=False,
            dynamic_ncols=terminal,
        )

    @property
    def format_dict(self):
        texts = [x if isinstance(x, str) else f"{float(x):.4g}" for x in self.metrics.values()]
        metrics = ", ".join(f"{name} {text}" for name, text in zip(self.metrics, texts, strict=True))
        return super().format_dict | {"postfix": metrics}

    @staticmethod
    def status_printer(file):
        """Returns tqdm's function that draws a text in place; in a log file, one that prints a line."""
        if file.isatty():
            return tqdm.tqdm.status_printer(file)
        return lambda text: print(text, file=file, flush=True)

    def close(self):
        """Takes the bar off the terminal; a log file keeps its lines. Either may be closed, as after a failed run."""
        if not self.terminal:
            self.disable = True
        super().close()


def say(text):
    """Prints a line on standard error, above the bar if there is one."""
    if sys.stderr.isatty():
        Bar.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)
