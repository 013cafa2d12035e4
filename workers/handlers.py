"""Handlers on their way to worker processes; the only module that serialises code.

dill packs a function with its code where it comes from `__main__`, and by name where the worker can
import it. It happens once, when the pool starts, and is tried back at once: what cannot travel is
an error there, with its name, and not a worker that hangs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from eventlog import EventEnvelope
from workers.errors import InvalidHandler

Handler = Callable[[Any], Any]


def packed(handler: object, what: str = "handler") -> bytes:
    """The callable, or `"package.module:name"`, as bytes.

    Raises:
        InvalidHandler: it is not callable, or cannot be packed.
    """
    if isinstance(handler, str):
        _check_named(handler, what)
    elif not callable(handler):
        raise InvalidHandler(
            f"the {what} is {handler!r}; give a function, or 'package.module:function'"
        )
    import dill

    try:
        data: bytes = dill.dumps(handler, recurse=True)
        dill.loads(data)  # noqa: S301 - our own bytes
    except Exception as error:
        raise InvalidHandler(
            f"the {what} {_name_of(handler)} cannot be sent to a worker process"
            f" ({type(error).__name__}: {error}); move what it holds (a connection, a lock, an open"
            " file) into an initializer, or make it in the handler"
        ) from error
    return data


def _check_named(name: str, what: str) -> None:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InvalidHandler(f"the {what} is {name!r}; give 'package.module:function'")


def _name_of(handler: object) -> str:
    return str(getattr(handler, "__qualname__", repr(handler)))


def unpacked(data: bytes) -> Handler:
    """The callable, in the worker. Only ever given what the pool's own process packed."""
    import dill

    handler: Any = dill.loads(data)  # noqa: S301 - what our own pool packed
    if isinstance(handler, str):
        module, _, attribute = handler.partition(":")
        handler = importlib.import_module(module)
        for name in attribute.split("."):
            handler = getattr(handler, name)
        if not callable(handler):
            raise TypeError(f"{module}:{attribute} is {handler!r}, which cannot be called")
    return handler  # type: ignore[no-any-return]


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
