"""Calls of a user's function whose exception comes back as a value.

Raised out of a thread or a coroutine, some exceptions would become another one (`StopIteration`),
or end more than the call (`KeyboardInterrupt`, `asyncio.CancelledError`, `SystemExit`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from workers import forks, generations


class Called(NamedTuple):
    """How a call has ended."""

    result: Any
    error: BaseException | None


def called(function: Callable[..., Any], *arguments: Any) -> Called:
    """Call it; a child that it forked ends with it."""
    generation = generations.generation
    try:
        ended = Called(function(*arguments), None)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the caller decides
        ended = Called(None, error)
    return _in_parent(generation, ended)


async def awaited(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Called:
    """The same for a coroutine function. The caller raises what cancels its own task."""
    generation = generations.generation
    try:
        ended = Called(await function(*arguments), None)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the caller decides
        ended = Called(None, error)
    return _in_parent(generation, ended)


def _in_parent(generation: int, ended: Called) -> Called:
    if generations.generation != generation:
        forks.end(ended.error)
    return ended
