"""Strict JSON: a text becomes the frozen dataclass that its reader expects, or an error that names the key."""

import dataclasses
import json
import re
import types
import typing

from cdc_keras.errors import UserError

LARGEST = 1e300  # a float beyond it is a slip or an attack; so are NaN and 1e400, which JSON would read as infinity
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")  # of a record, of a rival, of a factor
SHA256 = re.compile(r"[0-9a-f]{64}")
EXPECTED = {str: "text", int: "a whole number", bool: "true or false", float: "a number"}


def demand(holds, key, expected, came):
    """Raises UserError unless `holds`.

    Args:
        holds: whether the value is as it has to be.
        key: where the value stands, such as "golden.seed".
        expected: what it has to be, in words.
        came: the value.
    """
    if not holds:
        raise UserError(f"{key} is to be {expected}, but {str(came)[:200]!r} came; get the record again")


def read_json(text, path):
    """Returns the value of a JSON text, in which NaN and Infinity are errors.

    Args:
        text: text or bytes.
        path: of its file, for messages.

    Raises:
        UserError: it is no JSON.
    """

    def refuse(constant):
        raise ValueError(f"{constant} is no number")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); get the file again") from error


def parse(kind, value, key=""):
    """Returns a value from JSON as the annotated type `kind`, a dataclass or what its fields may be.

    Args:
        kind: a dataclass, `X | None`, `tuple[X, ...]`, `dict[str, X]`, dict, str, int, bool or float.
        value: what `read_json` returned.
        key: where it stands, for messages.

    Raises:
        UserError: naming the key that is unknown, missing, of another type or out of its bounds.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # X | None
        return None if value is None else parse(arguments[0], value, key)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        demand(not (unknown := sorted(set(value) - set(hints))), key or "preset", "without other keys", unknown)
        demand(not (missing := sorted(set(hints) - set(value))), key or "preset", f"with {missing}", "none")
        return kind(**{name: parse(hint, value[name], f"{key}.{name}".lstrip(".")) for name, hint in hints.items()})
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(parse(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: parse(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if kind is float and type(value) in (int, float):
        demand(abs(value) < LARGEST, key, f"a number below {LARGEST:g}", value)
        return float(value)
    expected = "a list" if origin is tuple else EXPECTED.get(kind, "an object")
    demand(type(value) is kind, key or "preset", expected, value)
    return value
