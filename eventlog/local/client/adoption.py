"""Waiting for writers that became this process's children.

A writer is started by a process that ends at once, so that nobody has to wait for it. It becomes a
child of the first process of the container, or of the nearest one that is a child subreaper; if
that uses the log itself, each writer that ends would stay as a zombie.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Final

from eventlog.local.rendezvous import peer_of

_awaited: Final = set[int]()


def await_adopted(pipe: socket.socket) -> socket.socket:
    """The same pipe to a writer; a thread waits for the writer's end if it is a child of ours."""
    pid, _ = peer_of(pipe)
    if pid <= 0 or pid in _awaited:
        return pipe
    with suppress(ChildProcessError, ProcessLookupError):  # as almost everywhere
        if os.getsid(pid) in (pid, os.getsid(0)):
            return pipe  # the program started it, and waits for it: a detached one has another's
        ended, _ = os.waitpid(pid, os.WNOHANG)
        if not ended:
            _awaited.add(pid)
            name = f"end of writer {pid}"
            threading.Thread(target=_await_end, args=(pid,), name=name, daemon=True).start()
    return pipe


def _await_end(pid: int) -> None:
    try:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    finally:
        _awaited.discard(pid)
