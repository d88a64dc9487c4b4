"""cdc-keras tables: every row of tables of the paper, trained, scored and written."""

from cdc_keras.errors import UserError
from cdc_keras.tables.work import tables


def main(values):
    """Trains and scores what is missing of the tables, and writes them.

    Raises:
        UserError: a run failed.
    """
    settings = {name: values[name].value for name in values}
    failed = tables(settings.pop("table"), **settings)
    if failed:
        raise UserError("; ".join(f"{name}: {why}" for name, why in failed.items()))
