"""What code is made of: the functions that it calls, and all that travels with it by value."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from cloudpickle import cloudpickle

from workers.importing import is_named

Parts = Iterator[tuple[str, Any]]


def parts_of(obj: Any) -> Parts:
    """What would travel with the object, each with a name for people; nothing if it has a name."""
    if is_named(obj) or isinstance(obj, types.ModuleType):
        return
    for kind, parts in PARTS.items():
        if isinstance(obj, kind):
            yield from parts(obj)
            return
    if hasattr(obj, "__wrapped__"):
        yield "its function", obj.__wrapped__
    own = getattr(obj, "__dict__", None)
    if isinstance(own, dict):
        yield from _parts_of_names(own)
    yield "its class", type(obj)


def _parts_of_function(function: types.FunctionType) -> Parts:
    known = function.__globals__
    for name in cloudpickle._extract_code_globals(function.__code__):
        if name in known:
            yield name, known[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue
    yield from (("a default of its parameters", value) for value in function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).items()


def _parts_of_method(method: types.MethodType) -> Parts:
    yield "its object", method.__self__
    yield "its function", method.__func__


def _parts_of_partial(partial: functools.partial[Any]) -> Parts:
    yield "its function", partial.func
    yield from (("its argument", value) for value in partial.args)
    yield from ((f"its argument {name}", value) for name, value in partial.keywords.items())


def _parts_of_names(names: Any) -> Parts:
    yield from ((f"its attribute {name}", value) for name, value in names.items())


def _parts_of_mapping(mapping: dict[Any, Any]) -> Parts:
    yield from ((f"its entry {key!r}"[:80], value) for key, value in mapping.items())


def _parts_of_collection(collection: Any) -> Parts:
    yield from (("its entry", value) for value in collection)


PARTS: Any = {
    types.FunctionType: _parts_of_function,
    types.MethodType: _parts_of_method,
    functools.partial: _parts_of_partial,
    type: lambda cls: _parts_of_names(dict(vars(cls))),
    dict: _parts_of_mapping,
    (list, tuple, set, frozenset): _parts_of_collection,
}


def called_first(code: object) -> list[types.FunctionType]:
    """The functions that the code calls, those that are called before those that call them.

    Packed in this order a chain of a thousand functions is not a recursion of a thousand steps.
    """
    found: list[types.FunctionType] = []
    seen: set[int] = set()
    path: list[tuple[Any, Iterator[Any]]] = [(None, iter([_function_of(code)]))]
    while path:
        function, called = path[-1]
        for one in called:
            if isinstance(one, types.FunctionType) and id(one) not in seen and not is_named(one):
                seen.add(id(one))
                path.append((one, _called_by(one)))
                break
        else:
            path.pop()
            if len(path) > 1:  # not the code itself, which may be part of a class
                found.append(function)
    return found


def _function_of(code: object) -> object:
    code = getattr(code, "func", code)
    code = getattr(code, "__func__", code)
    return code if isinstance(code, types.FunctionType) else getattr(type(code), "__call__", None)  # noqa: B004


def _called_by(function: types.FunctionType) -> Iterator[Any]:
    known = function.__globals__
    names = cloudpickle._extract_code_globals(function.__code__)
    return iter([known[name] for name in names if name in known])
