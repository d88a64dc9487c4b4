"""Running a command inside the process of the tests, and under another backend outside of it."""

import contextlib
import io

import pytest

from cdc_keras import cli

# For processes under JAX. XLA's optimisations cost more than they save on a few steps.
JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run_command(name, *arguments):
    """Runs `cdc-keras <name>` with arguments as on the command line; texts or paths."""
    cli.run(name, [str(argument) for argument in arguments])


def refusal(name, *arguments):
    """Returns the sentence with which a command refuses its arguments, without "error: "."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr, pytest.raises(SystemExit) as stopped:
        run_command(name, *arguments)
    _, error, sentence = stderr.getvalue().rpartition("error: ")
    assert error and stopped.value.code in (1, 2), stderr.getvalue()
    return sentence.strip()
