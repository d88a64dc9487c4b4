"""cdc-keras demo: the whole method in a few minutes."""

from cdc_keras.demo import demo


def main(values):
    """Runs the demo into `--out` and prints its table and pictures."""
    print(demo(values.out))
