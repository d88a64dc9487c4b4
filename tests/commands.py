"""Running a command inside the process of the tests."""

import contextlib
import io

import pytest

from cdc_keras import cli


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
