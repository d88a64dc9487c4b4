"""Running `python -m cdc_keras....` inside the process of the tests."""

import pytest
from absl import flags


def run_command(command, *arguments):
    """Runs a command with arguments as on the command line.

    Args:
        command: its module, `__main__` of a package, which has `define` and `main`.
        arguments: texts or paths.
    """
    values = flags.FlagValues()
    command.define(values)
    values([command.__name__, *map(str, arguments)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flags, "FLAGS", values)
        command.main([command.__name__])
