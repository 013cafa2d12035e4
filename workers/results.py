"""What handlers return: nothing, a result, or `Results`, which are several for one event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from eventlog import InvalidArgumentType

NOT_RUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)
"""What calling a function gives whose body has not begun to run."""
_NOT_RUN_MESSAGE: Final = (
    "the handler returned a {}, so nothing of it has run: make the handler itself async, or return"
    " a list"
)


class Results:
    """Several results of one event: `return Results([thumbnail, preview])`.

    Each becomes an event of its own in the pool's output, in this order and in one step: all or
    none of them are stored. Without any, the event is just done. One that is an `EventEnvelope`
    sets its key and headers itself.
    """

    __slots__ = ("values",)

    def __init__(self, values: Iterable[Any] = ()) -> None:
        """Take the values now, also those of an iterator.

        Raises:
            InvalidArgumentType: that is no iterable of results, or a single text or mapping.
        """
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InvalidArgumentType(f"Results({values!r:.80}); give a list of results")
        self.values = tuple(values)

    def __repr__(self) -> str:
        """What was given."""
        return f"Results({list(self.values)!r})"


def results_of(returned: Any) -> tuple[Any, ...]:
    """The results in what a handler returned."""
    if returned is None:
        return ()
    return returned.values if isinstance(returned, Results) else (returned,)


def not_run(returned: object) -> TypeError | None:
    """The error of a handler that returned what has not begun to run."""
    if not isinstance(returned, NOT_RUN):
        return None
    if isinstance(returned, CoroutineType):
        returned.close()  # or Python warns that nobody awaited it
    return TypeError(_NOT_RUN_MESSAGE.format(type(returned).__name__))
