"""Which side of a fork this process is on: what a parent's pool has is of no use in its child."""

from __future__ import annotations

import os

generation = 0
"""Counts the forks that led to this process, so that a check costs one comparison."""


def _begin_child() -> None:
    global generation  # noqa: PLW0603 - a fork changes the process, so the process's state
    generation += 1


os.register_at_fork(after_in_child=_begin_child)
