"""Tell which modules an append and a lease cross: `python -m tests.crossings DIRECTORY`.

The writer runs in the main thread of this process and a client in another, each with a profiler.
Says, for both calls, each stack of our modules that a function was called with, outermost first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

import eventlog
from eventlog import blocking
from eventlog.blocking import EventLog
from eventlog.local.writer.__main__ import serve
from eventlog.testing import open_storage

ROOT: Final = os.path.dirname(eventlog.__file__) + os.sep
Stack = tuple[str, ...]


class Profiler:
    """Notes the stacks of calls, while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.stacks: set[Stack] = set()
        self._names: dict[CodeType, str] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        """See `sys.setprofile`."""
        if event != "call" or not self.is_on or not self._name(frame.f_code):
            return
        stack: list[str] = []
        inner: FrameType | None = frame
        while inner is not None:
            name = self._name(inner.f_code)
            if name and name != (stack[-1] if stack else ""):
                stack.append(name)
            inner = inner.f_back
        self.stacks.add(tuple(reversed(stack)))

    def _name(self, code: CodeType) -> str:
        """The module, if it is one of ours."""
        name = self._names.get(code)
        if name is None:
            path = code.co_filename
            is_ours = path.startswith(ROOT)
            name = path[len(ROOT) : -len(".py")].replace(os.sep, ".") if is_ours else ""
            self._names[code] = name
        return name

    def crossed(self, log: EventLog, call: Callable[[], Any]) -> set[Stack]:
        """The stacks of a call, in both threads."""
        log.status()  # what was said before is done when the writer answers
        self.stacks, self.is_on = set(), True
        call()
        self.is_on = False
        return self.stacks


def use(path: str, profiler: Profiler) -> dict[str, list[Stack]]:
    """Append and lease, as programs do that have done so before."""
    with blocking.open(path) as log, log.group("g") as group, group.open_member() as member:
        log.append(0)
        lease = member.lease()
        for _, envelope in lease or ():
            assert lease is not None
            lease.done(envelope)
        member.flush()
        found = {"append": profiler.crossed(log, lambda: log.append(1))}
        found["lease"] = profiler.crossed(log, member.lease)
    return {name: sorted(stacks) for name, stacks in found.items()}


def main() -> None:
    """See the module."""
    path, profiler = sys.argv[1], Profiler()
    open_storage(path, durability="memory").close()
    threading.setprofile(profiler)  # of threads that begin from now on
    sys.setprofile(profiler)

    def run() -> None:
        try:
            sys.stdout.write(json.dumps(use(path, profiler)))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    client = threading.Thread(target=run)
    serve(path, linger_s=None, on_ready=client.start)
    client.join()


if __name__ == "__main__":
    main()
