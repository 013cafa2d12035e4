"""Handlers on their way to worker processes; the only module that serialises code.

dill packs a function with its code where it comes from `__main__`, and by name where the worker can
import it. It happens once, when the pool starts, and is tried back at once: what cannot travel is
an error there, with its name, and not a worker that hangs.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
from collections.abc import Callable
from io import BytesIO
from types import CodeType, FunctionType
from typing import Any

from eventlog import EventEnvelope
from workers.errors import InvalidHandler

Handler = Callable[[Any], Any]


def packed(handler: object, initializer: object = None) -> bytes:
    """Both as bytes; each is a callable, or `"package.module:name"`.

    Raises:
        InvalidHandler: one of them is not callable, or cannot be packed.
    """
    _check(handler, "handler")
    if initializer is None:
        return _tried(handler, (handler, None), "handler")
    _check(initializer, "initializer")
    _tried(initializer, initializer, "initializer")  # tells which of them it is
    return _tried(handler, (handler, initializer), "handler")


def _check(code: object, what: str) -> None:
    if isinstance(code, str):
        _check_named(code, what)
    elif not callable(code):
        raise InvalidHandler(
            f"the {what} is {code!r}; give a function, or 'package.module:function'"
        )


def _tried(code: object, value: object, what: str) -> bytes:
    import dill

    try:
        data = _dumped(value)
        dill.loads(data)  # noqa: S301 - our own bytes
    except Exception as error:
        raise InvalidHandler(
            f"the {what} {_name_of(code)} cannot be sent to a worker process"
            f" ({type(error).__name__}: {error}); move what it holds (a connection, a lock, an open"
            " file) into an initializer, or make it in the handler"
        ) from error
    return data


def _dumped(value: object) -> bytes:
    """As `dill.dumps` with `recurse`; functions of one module keep having their globals in common.

    dill alone gives each function a dict of its own, with what the function names. What one of
    them set there, such as an initializer, the others would never see.
    """
    import dill

    shared: dict[tuple[int, str | None], dict[str, Any]] = {}

    class Pickler(dill.Pickler):  # type: ignore[misc]
        def save_reduce(
            self, func: Any, args: Any, state: Any = None, *rest: Any, obj: Any = None, **more: Any
        ) -> None:
            if not isinstance(obj, FunctionType) or not isinstance(args[0], CodeType):
                super().save_reduce(func, args, state, *rest, obj=obj, **more)
                return
            code, names, *others = args
            common = shared.setdefault((id(obj.__globals__), obj.__module__), names)
            super().save_reduce(func, (code, common, *others), state, *rest, obj=obj, **more)
            if names is not common:  # what dill does to the one is done to the other
                self.write(self.get(self.memo[id(common)][0]))
                self.memoize(names)
                self.write(pickle.POP)

    file = BytesIO()
    Pickler(file, dill.settings["protocol"], recurse=True).dump(value)
    return file.getvalue()


def _check_named(name: str, what: str) -> None:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InvalidHandler(f"the {what} is {name!r}; give 'package.module:function'")


def _name_of(handler: object) -> str:
    return str(getattr(handler, "__qualname__", repr(handler)))


def unpacked(data: bytes) -> tuple[Handler, Callable[[], object] | None]:
    """Handler and initializer, in the worker. Only ever given what the pool's process packed."""
    import dill

    handler, initializer = dill.loads(data)  # noqa: S301 - what our own pool packed
    return _named(handler), None if initializer is None else _named(initializer)


def _named(code: Any) -> Any:
    """What stands under that name; a callable is itself."""
    if not isinstance(code, str):
        return code
    module, _, attribute = code.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{module}:{attribute} is {found!r}, which cannot be called")
    return found


def wants_envelope(handler: Handler) -> bool:
    """Whether the handler is to be given the envelope: its first parameter says so.

    That is one named `envelope`, or annotated with `EventEnvelope`; any other gets the event.
    """
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):
        return False  # a builtin
    if not parameters:
        return False
    first = parameters[0]
    names = (EventEnvelope, "EventEnvelope", "eventlog.EventEnvelope")
    return first.name == "envelope" or first.annotation in names


def is_async(handler: Handler) -> bool:
    """Whether calling the handler gives something to await."""
    call = getattr(handler, "func", handler)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
        getattr(call, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
    )
