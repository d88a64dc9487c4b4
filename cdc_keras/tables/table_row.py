"""What is kept of one run of a table, and the file of a folder's tables that holds it."""

import dataclasses
import json

from cdc_keras.errors import UserError
from cdc_keras.weights import write_text

ROWS = "rows.json"


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One run of a table: a row's network, trained with one seed, and its scores, shares in [0, 1].

    Attributes:
        row: name of the `systems.Row`.
        settings: those that decide what the run gives, as `jobs.settings_of` returns them.
        context: {"sha256", "settings"} of the extractor that gates it; None without one.
        teacher: {"sha256", "split", "top1", "settings"} of its teacher; None without one.
        history: {"val_top1", "test_top1", "test_top5": [a share for each epoch]}.
        images_per_second: of training, the median over the epochs.
        parameters, trainable_parameters: how many weights there are, and how many of them are trained.
        corrupted_images: how many test images were scored under every corruption.
        corrupted: {"images", "top1": {corruption: [a share for each severity]}}; None without corruptions.
        backgrounds: {"images", "top1": {variant: share}} of the backgrounds challenge; None but on `shapes`.
        gate: what `gate_use` returned; None without a gate.
        commits: those that it was trained and scored at.
        hardware, versions, started, train_images, hours: as in the run's folder.
    """

    row: str
    settings: dict
    context: dict | None
    teacher: dict | None
    history: dict
    images_per_second: float
    parameters: int
    trainable_parameters: int
    corrupted_images: int
    corrupted: dict | None
    backgrounds: dict | None
    gate: dict | None
    commits: list
    hardware: str
    versions: dict
    started: str
    train_images: int
    hours: float

    @property
    def seed(self):
        return self.settings["seed"]

    @classmethod
    def from_json(cls, text, path):
        """Returns the row that a JSON text holds.

        Raises:
            UserError: it holds none, naming `path`.
        """
        return _parsed(path, text)[0]

    def to_json(self):
        """Returns the row as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def read_rows(folder):
    """Returns the `TableRow`s in a folder of tables, none if it has no file of them.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / ROWS
    return _parsed(path, path.read_text(encoding="utf-8")) if path.is_file() else []


def write_rows(folder, rows):
    """Writes `TableRow`s into a folder of tables, one a line, ordered by row, epochs and seed."""
    rows = sorted(rows, key=lambda row: (row.row, row.settings["epochs"], row.seed))
    write_text(folder / ROWS, "[\n" + ",\n".join(row.to_json() for row in rows) + "\n]\n")


def _parsed(path, text):
    try:
        content = json.loads(text)
        return [TableRow(**row) for row in (content if isinstance(content, list) else [content])]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; put it right, or choose another folder") from None
