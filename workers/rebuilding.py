"""What a worker makes anew of what came by value; named in the bytes that `packing` writes.

A class is made empty first, and filled once it can be referred to: its own functions name it.
"""

from __future__ import annotations

import functools
import pickle
import types
import typing
from collections.abc import Callable
from contextvars import ContextVar
from io import BytesIO
from typing import Any, Final

from workers.importing import is_importable

TRACKED: Final = {"_make_skeleton_class": 4, "_make_typevar": 5}
"""cloudpickle's functions that give a class back that this process has, and fill it again."""


class Unreachable(Exception):
    """A name that a worker does not have."""


def script_names() -> dict[str, Any]:
    """The globals of the script; each unpickler has its own."""
    raise RuntimeError("only an unpickler knows them")


class Rebuilder(pickle.Unpickler):
    """Reads in a worker what was packed; `script` becomes the globals of the script's functions."""

    def __init__(self, file: BytesIO, script: dict[str, Any]) -> None:
        super().__init__(file)
        self._file = file
        self._script = script

    @property
    def is_at_end(self) -> bool:
        """Whether all values were read."""
        return self._file.tell() == len(self._file.getbuffer())

    def find_class(self, module: str, name: str) -> Any:
        """What stands there under that name."""
        if (module, name) == (__name__, "script_names"):
            return lambda: self._script
        return super().find_class(module, name)


class Trial(Rebuilder):
    """Reads in the pool's process as a worker would: without what only this process has."""

    def find_class(self, module: str, name: str) -> Any:
        """What a worker would find."""
        if module == "__main__" or not (is_importable(module) or _can_import(module)):
            raise Unreachable(f"{module}.{name} can only be found by its name, and only here")
        found = super().find_class(module, name)
        if module.startswith("cloudpickle") and name in TRACKED:
            return _untracked(found, TRACKED[name])
        return found


def _can_import(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return is_importable(module)


def _untracked(make: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Make a new class, so that the one of the script stays as it is."""
    return lambda *args: make(*args[:place], None, *args[place + 1 :])


def loaded(rebuilder: Rebuilder) -> Any:
    """The last of the values in its file."""
    value = rebuilder.load()
    while not rebuilder.is_at_end:
        value = rebuilder.load()
    return value


# --- classes ---------------------------------------------------------------------------------


def make_enum(
    meta: Any,
    named: tuple[str, str, str],
    bases: tuple[type, ...],
    members: dict[str, Any],
    basics: dict[str, tuple[Any, ...]],
    options: dict[str, Any],
) -> Any:
    """The enum with its members, and nothing else yet."""
    name, qualname, module = named
    names = meta.__prepare__(name, bases, **options)
    names["__module__"], names["__qualname__"] = module, qualname
    if basics:
        names["__new__"] = _new_member
        names["__init__"] = _init_nothing
    for member, value in members.items():
        names[member] = [value, basics[member]] if basics else value
    made = meta.__new__(meta, name, bases, names, **options)
    if basics:
        del made.__init__
    return made


def _new_member(cls: Any, given: Any) -> Any:
    while isinstance(given, tuple):  # of an enum of tuples
        (given,) = given
    value, arguments = given
    member = cls._member_type_.__new__(cls, *arguments)
    member._value_ = value
    return member


def _init_nothing(*_: Any) -> None:
    pass


def make_struct(
    meta: Any,
    named: tuple[str, str, str],
    bases: tuple[Any, ...],
    fields: tuple[list[str], dict[str, Any], dict[str, Any]],
    options: dict[str, Any],
    has_post_init: bool,
) -> Any:
    """The struct with its fields: names, defaults, and functions that make defaults.

    What their types are, it is told when it is filled.
    """
    import msgspec

    own, defaults, factories = fields
    name, qualname, module = named
    names: dict[str, Any] = {"__module__": module, "__qualname__": qualname}
    names["__annotations__"] = dict.fromkeys(own, Any)
    names |= defaults
    names |= {field: msgspec.field(default_factory=one) for field, one in factories.items()}
    if has_post_init:  # msgspec looks for it now, and the class's own one is not there yet
        names["__post_init__"] = lambda self: type(self).__post_init__(self)
    return types.new_class(
        name, bases, {"metaclass": meta, **options}, lambda body: body.update(names)
    )


def fill_class(cls: Any, everything: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    """Give the class what it has, and the script's names what they mean."""
    from cloudpickle import cloudpickle

    state, script, names = everything
    script.update(names)
    for name, own in state.pop("__members_have__", {}).items():
        vars(cls.__members__[name]).update(own)
    cloudpickle._class_setstate(cls, (state, {}))


# --- objects ---------------------------------------------------------------------------------


def make_cache(maxsize: int | None, typed: bool) -> Any:
    """A cache of a function that it does not know yet."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return cached.__wrapped__(*args, **kwargs)

    cached = functools.lru_cache(maxsize, typed)(call)
    return cached


def fill_cache(cached: Any, state: dict[str, Any]) -> None:
    """Give the cache its function."""
    functools.update_wrapper(cached, state["__wrapped__"])
    vars(cached).update(state)


def make_variable(name: str, default: dict[str, Any]) -> ContextVar[Any]:
    """A context variable."""
    return ContextVar(name, **default)


def make_with(kind: Callable[..., Any], options: dict[str, Any]) -> Any:
    """An object that is nothing but its options."""
    return kind(**options)


def make_new_type(name: str, qualname: str, module: str, base: Any) -> Any:
    """A `NewType`."""
    made = typing.NewType(name, base)  # type: ignore[misc]  # its name comes with it
    made.__qualname__, made.__module__ = qualname, module
    return made


def make_typing(kind: Any, name: str, module: str) -> Any:
    """A `ParamSpec` or a `TypeVarTuple`."""
    made = kind(name)
    made.__module__ = module
    return made
