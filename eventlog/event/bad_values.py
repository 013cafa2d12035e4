"""Where in an event a value lies that cannot be stored: `rows[0].v`; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

import msgspec

LEVELS_MAX: Final = 64
"""How deep to look: whoever reads a longer path than that has no use for it."""
KEY_CHARACTERS: Final = 40
_INSTEAD: Final = {
    "datetime.date": "value.isoformat()",
    "datetime.time": "value.isoformat()",
    "datetime.timedelta": "value.total_seconds()",
    "decimal.Decimal": "str(value)",
    "frozenset": "list(value)",
    "numpy.datetime64": "int(value.astype('int64'))",
    "numpy.timedelta64": "int(value.astype('int64'))",
    "set": "list(value)",
}
_REFUSALS: Final = (TypeError, ValueError, OverflowError, RecursionError, BufferError)


def type_name(value: Any) -> str:
    """The type's name, with its module unless that is Python's own: `numpy.int64`."""
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def not_packed(value: Any) -> TypeError:
    """The error of a value that MessagePack does not have; says what to store of common types."""
    instead = _instead_of(value)
    advice = f" (store `{instead}` instead)" if instead else ""
    return TypeError(f"MessagePack has no {type_name(value)}{advice}")


def _instead_of(value: Any) -> str:
    kind, name = type(value), type_name(value)
    if issubclass(kind, Enum):
        return "value.value"
    if name in _INSTEAD:
        return _INSTEAD[name]
    if name.startswith("numpy.") and hasattr(kind, "item"):
        return "value.item()"
    if hasattr(kind, "model_dump"):  # pydantic's
        return 'value.model_dump(mode="json")'
    if hasattr(kind, "__fspath__"):
        return "str(value)"
    return ""


def bad_place(event: Any, pack: Callable[[Any], object], error: Exception) -> str:
    """The path of the value that `pack` refuses; empty for the event itself, or a too deep one."""
    if isinstance(error, RecursionError) or "recursion" in str(error):
        return ""
    path, value = "", event
    for _ in range(LEVELS_MAX):
        found = next(((step, one) for step, one in _parts(value) if not _packs(one, pack)), None)
        if found is None:
            return path.removeprefix(".")
        path, value = path + found[0], found[1]
    return path.removeprefix(".") + "..."


def _packs(value: Any, pack: Callable[[Any], object]) -> bool:
    try:
        pack(value)
    except _REFUSALS:
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, and the step to each."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[key {_shown(key)}]", key
            yield _step(key), item
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield f"[{place}]", item
    else:
        for name in _field_names(value):
            yield f".{name}", getattr(value, name, None)


def _field_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in fields(value))
    return ()


def _step(key: Any) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{_shown(key)}]"


def _shown(key: Any) -> str:
    """The key's repr, unless that is an error of its own."""
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - the class is the caller's
        return type_name(key)
    return text if len(text) <= KEY_CHARACTERS else text[:KEY_CHARACTERS] + "..."
