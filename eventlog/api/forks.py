"""Which side of a fork this process is on: handles of a parent are of no use in its child.

A forked child has its parent's pipes, and would mix its own messages into the parent's.
`generation` counts the forks that led to this process, so that a check costs one comparison.
What must not live on in a child (a lock, which its last descriptor holds) is left to the parent.
"""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

from eventlog.errors import ForkedHandle

generation = 0
UNUSABLE: Final = -1
"""No process is of this generation: what is closed or has failed takes it on."""


class Inherited(Protocol):
    """What a forked child has a copy of, and must not keep."""

    def drop_copy(self) -> None:
        """Close the child's copy; what the parent has stays as it is."""


_parents: weakref.WeakSet[Inherited] = weakref.WeakSet()


def leave_to_parent(thing: Inherited) -> None:
    """Have children that this process forks from now on drop their copy of the thing."""
    _parents.add(thing)


def _begin_child() -> None:
    global generation  # noqa: PLW0603 - a fork changes the process, so the process's state
    generation += 1
    for thing in list(_parents):
        thing.drop_copy()
    _parents.clear()


os.register_at_fork(after_in_child=_begin_child)


def check(made_in: int, path: str) -> None:
    """Pass if a handle made in that generation belongs to this process.

    Raises:
        ForkedHandle: it belongs to the parent.
    """
    if made_in != generation:
        raise ForkedHandle(
            f"this handle of the log {path} belongs to the parent process: open the log again after"
            " the fork (or start the process with the spawn method and hand the log over)",
            path=path,
        )
