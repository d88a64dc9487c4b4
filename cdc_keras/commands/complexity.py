"""cdc-keras complexity: parameters and multiply-adds, part by part."""

from cdc_keras.complexity import scopes_table, table
from cdc_keras.runs.trained import load


def main(values):
    """Prints the counts of `--model`, or of the paper's networks beside those that the papers print."""
    print(table() if values.model is None else scopes_table(load(values.model)))
