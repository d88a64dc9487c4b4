"""What every command does alike."""

import logging

from absl import logging as absl_logging


def quiet_libraries():
    """Leaves the terminal to this program: information and retracing notes of TFDS and TensorFlow are not shown."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
