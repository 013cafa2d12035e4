"""Handlers on their way to worker processes, and what they are to their worker.

What a worker can import travels by name, and all else by value, with its code (`packing`). It is
packed once, when the pool is made, and read back at once as a worker would: what cannot travel is
an error there that names it, and not a worker that fails.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from io import BytesIO
from types import ModuleType
from typing import Any, Final, NamedTuple

from eventlog import EventEnvelope
from workers.errors import InvalidHandler

Handler = Callable[[Any], Any]
CULPRITS_MAX: Final = 100
"""How deep to look for what cannot travel."""


RetryOn = tuple[type[BaseException], ...]
BUILT_IN: Final = "builtins:"
"""What stands before the name of an exception that names no module."""


class Code(NamedTuple):
    """What travels to a worker; before that, handler and initializer may be names."""

    handler: Any
    initializer: Any = None
    retry_on: tuple[Any, ...] = (BaseException,)
    """Exceptions after which an event is tried again; after all others it is a dead letter."""
    type: Any = None
    """What events are converted to for the handler."""

    def found(self) -> Code:
        """The same, as it is used: what stands under the names, behind the conversion.

        Raises:
            Exception: whatever an import raises, or `TypeError` for what cannot be called.
        """
        from workers.typed import Typed

        handler = named(self.handler)
        check_call(handler, "handler", 1)
        initializer = None if self.initializer is None else named(self.initializer)
        if initializer is not None:
            check_call(initializer, "initializer", 0)
        return self._replace(
            handler=handler if self.type is None else Typed(handler, named(self.type)),
            retry_on=tuple(_exception(one) for one in self.retry_on),
            initializer=initializer,
        )


def packed(code: Code) -> bytes:
    """All as bytes; handler and initializer are callables, or `"package.module:name"`.

    Raises:
        InvalidHandler: one of them is not callable, or cannot be packed.
    """
    check(code)
    if code.initializer is not None:
        _tried(code.initializer, code.initializer, "initializer")  # tells which of them it is
    return _tried(code.handler, tuple(code), "handler")


def check(code: Code) -> None:
    """Pass if both can be called as they will be, or are names of what may be.

    Raises:
        InvalidHandler: one of them is neither.
    """
    _check(code.handler, "handler", 1)
    if code.initializer is not None:
        _check(code.initializer, "initializer", 0)
    if isinstance(code.type, str):
        _check_named(code.type, "type")
    for one in code.retry_on:
        if isinstance(one, str):
            _check_named(_full(one), "exception in retry_on")


def _full(name: str) -> str:
    return name if ":" in name else BUILT_IN + name


def _exception(kind: Any) -> type[BaseException]:
    found = named(_full(kind)) if isinstance(kind, str) else kind
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"retry_on has {kind!r}, which is no exception")
    return found


def _check(code: object, what: str, arguments: int) -> None:
    if isinstance(code, str):
        _check_named(code, what)
    elif not callable(code):
        raise InvalidHandler(
            f"the {what} is {code!r}; give a function, or 'package.module:function'"
        )
    else:
        check_call(code, what, arguments)


def check_call(code: Callable[..., Any], what: str, arguments: int) -> None:
    """Pass if calling it with so many arguments may do something.

    Raises:
        InvalidHandler: each call would fail, or run nothing.
    """
    name = f"the {what} {_name_of(code)}"
    if _is_function_of(code, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        raise InvalidHandler(
            f"{name} is a generator, so a call runs nothing of it; return a list, or"
            " workers.Results for several results"
        )
    if what == "initializer" and is_async(code):
        raise InvalidHandler(
            f"{name} is a coroutine function, and runs before there is an event loop; give a plain"
            " function, or do it in the handler"
        )
    try:
        # Of what is called itself: one that a decorator has wrapped may get more from it.
        signature = inspect.signature(code, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # a builtin
    try:
        signature.bind(*range(arguments))
    except TypeError as error:
        given = "with one event" if arguments else "without arguments"
        raise InvalidHandler(f"{name} cannot be called {given}: {error}") from None


def _tried(code: object, value: object, what: str) -> bytes:
    try:
        return _packed(value, code)
    except Exception as error:
        way, thing, cause = _culprit(code, error)
        raise InvalidHandler(
            f"the {what} {_name_of(code)} cannot be sent to a worker process:"
            f" {way}{_kind_of(thing)} cannot leave this process"
            f" ({type(cause).__name__}: {cause}). Make it in an initializer or in the handler; or"
            " put the code that needs it into a module, and import it from there"
        ) from error


def _packed(value: object, code: object) -> bytes:
    """The bytes of the value, read back once as a worker would read them.

    Raises:
        Exception: whatever the objects raise when they are packed, or read.
    """
    from workers.packing import dumped
    from workers.rebuilding import Trial, loaded

    data = dumped(value, code)
    loaded(Trial(BytesIO(data), _new_names()))
    return data


def _culprit(code: object, error: Exception) -> tuple[str, object, Exception]:
    """What of the code cannot travel: the way to it, the thing itself, and why not."""
    from workers.anatomy import parts_of

    way = ""
    seen: set[int] = set()
    while len(seen) < CULPRITS_MAX:
        seen.add(id(code))
        for name, part in parts_of(code):
            cause = None if id(part) in seen else _refusal(part)
            if cause is not None:
                way, code, error = f"{way}{name} -> ", part, cause
                break
        else:
            break
    return way, code, error


def _refusal(part: object) -> Exception | None:
    try:
        _packed(part, part)
    except Exception as error:  # noqa: BLE001 - of whatever the user's objects raise
        return error
    return None


def _kind_of(thing: object) -> str:
    kind = type(thing)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    name = getattr(thing, "__qualname__", None)
    return f"{name}, a {module}{kind.__qualname__}," if name else f"a {module}{kind.__qualname__}"


def _new_names() -> dict[str, Any]:
    return {"__name__": "__main__", "__builtins__": __builtins__}


def _check_named(name: str, what: str) -> None:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InvalidHandler(f"the {what} is {name!r}; give 'package.module:function'")


def _name_of(handler: object) -> str:
    return str(getattr(handler, "__qualname__", repr(handler)))


def unpacked(data: bytes, script: dict[str, Any] | None = None) -> Code:
    """What was packed, in the worker. Only ever given what the pool's process packed.

    `script` becomes the globals of those of their functions that stood in the pool's script.
    """
    from workers.rebuilding import Rebuilder, loaded

    names = _new_names() if script is None else script
    return Code(*loaded(Rebuilder(BytesIO(data), names))).found()


def new_script() -> dict[str, Any]:
    """An empty `__main__` in place of the one that started this process: its names.

    What a script's code looks up by name (pickle, type hints) is looked for there.
    """
    script = ModuleType("__main__")
    sys.modules["__mp_main__"] = sys.modules["__main__"]  # kept, for its code still runs
    sys.modules["__main__"] = script
    return vars(script)


def named(code: Any) -> Any:
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
    return _is_function_of(handler, inspect.iscoroutinefunction)


def _is_function_of(code: object, *tests: Callable[[Any], bool]) -> bool:
    """Whether that is true of the function, of what is behind a partial, or of an object's call."""
    function = getattr(code, "func", code)
    call = getattr(function, "__call__", None)  # noqa: B004 - an object whose call is a coroutine
    return any(test(function) or test(call) for test in tests)
