"""The command line's flags, made from the fields of `RunConfig`."""

import dataclasses

from absl import flags

from cdc_keras.config import RunConfig

FLAGS = flags.FLAGS


def define():
    """Defines one flag per field of `RunConfig`, and `--run_dir`."""
    flags.DEFINE_string("run_dir", None, "folder of this run: settings, metrics, checkpoints, pictures", required=True)
    for field in dataclasses.fields(RunConfig):
        _define(field)


def config_from_flags():
    """Returns the `RunConfig` that the parsed flags say."""
    values = {field.name: FLAGS[field.name].value for field in dataclasses.fields(RunConfig)}
    return RunConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _define(field):
    kind, choices = field.metadata["type"], field.metadata["choices"]
    bounds = {"lower_bound": field.metadata["low"], "upper_bound": field.metadata["high"]}
    arguments = (field.name, field.default, field.metadata["help"])
    if choices:
        flags.DEFINE_enum(field.name, field.default, choices, field.metadata["help"])
    elif kind is bool:
        flags.DEFINE_bool(*arguments)
    elif kind is int:
        flags.DEFINE_integer(*arguments, **bounds)
    elif kind is float:
        flags.DEFINE_float(*arguments, **bounds)
    elif kind is tuple:
        flags.DEFINE_list(field.name, list(field.default), field.metadata["help"])
    else:
        flags.DEFINE_string(*arguments)
