"""Waiting for the end of a process that is nobody's child here."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from eventlog.local.storage.identity import is_same_process

LOOK_AGAIN_S = 1.0


async def wait_process_end(pid: int, start: int) -> None:
    """Return once the process of that pid and start time has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # a kernel without pidfds, or a process that is hidden
        while is_same_process(pid, start):  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(LOOK_AGAIN_S)
        return
    try:
        if is_same_process(pid, start):  # looked at after the descriptor names it for good
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def wait_member_end(pid: int, start: int, is_held: Callable[[], bool]) -> None:
    """Return once the process has ended, and nobody holds the member's page.

    A process of another PID namespace is not found by its number, and its page says that it lives;
    members of releases before that have the number alone.
    """
    await wait_process_end(pid, start)
    while is_held():  # noqa: ASYNC110 - nothing tells us
        await trio.sleep(LOOK_AGAIN_S)
