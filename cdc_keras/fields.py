"""What a setting is: a dataclass field with its help text, its group of flags, its allowed words or its bounds."""

import dataclasses

from cdc_keras.errors import UserError

GROUPS = ("run", "data", "training", "devices", "extractor", "classifier", "gate", "teacher", "experiments")


def field(group, default, help, *, choices=(), low=None, high=None):  # noqa: A002
    """Returns a dataclass field of one of `GROUPS`; None as default allows None, whatever the bounds."""
    metadata = {"group": group, "help": help, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def check(field, value):
    """Raises UserError unless a value is allowed for a field that `field` made."""
    allowed = field.metadata
    if value is None and field.default is None:
        return
    if allowed["choices"] and value not in allowed["choices"]:
        raise UserError(f"{field.name} is one of {', '.join(allowed['choices'])}, not {value!r}")
    if allowed["low"] is not None and value < allowed["low"] or allowed["high"] is not None and value > allowed["high"]:
        upper = f" and at most {allowed['high']}" if allowed["high"] is not None else ""
        raise UserError(f"{field.name} is at least {allowed['low']}{upper}, but {value} was given")
