"""The command line's flags, made from the fields of `RunConfig`."""

import dataclasses

from absl import flags

from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines one flag per field of `RunConfig`, and `--run_dir`.

    Args:
        values: the `absl.flags.FlagValues` to define them in.
    """
    flags.DEFINE_string(
        "run_dir", None, "folder of this run: settings, metrics, checkpoints, pictures", values, required=True
    )
    for field in dataclasses.fields(RunConfig):
        _define(field, values)


def config_from_flags(values=flags.FLAGS):
    """Returns the `RunConfig` that the parsed flags say."""
    return RunConfig(**{field.name: _value(field, values[field.name].value) for field in dataclasses.fields(RunConfig)})


def _value(field, value):
    """Returns what the flag says as `RunConfig` takes it: absl's lists are lists of text."""
    if not isinstance(value, list):
        return value
    if field.default and isinstance(field.default[0], float):
        try:
            return tuple(map(float, value))
        except ValueError:
            raise UserError(f"{field.name} is a list of numbers, not {','.join(value)}") from None
    return tuple(value)


def _define(field, values):
    kind, choices = field.metadata["type"], field.metadata["choices"]
    bounds = {"lower_bound": field.metadata["low"], "upper_bound": field.metadata["high"]}
    name, default, text = field.name, field.default, field.metadata["help"]
    if name == "task":  # the one setting nobody should get by default: the wrong one trains for days
        flags.DEFINE_enum(name, None, choices, text, values, required=True)
    elif choices:
        flags.DEFINE_enum(name, default, choices, text, values)
    elif kind is bool:
        flags.DEFINE_bool(name, default, text, values)
    elif kind is int:
        flags.DEFINE_integer(name, default, text, flag_values=values, **bounds)
    elif kind is float:
        flags.DEFINE_float(name, default, text, flag_values=values, **bounds)
    elif kind is tuple:
        flags.DEFINE_list(name, list(default), text, values)
    else:
        flags.DEFINE_string(name, default, text, values)
