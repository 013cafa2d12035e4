"""The surroundings in which a role runs: what a program has from its starter or does by itself."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

FIRST_FREE: Final = 3


def _usual() -> None:
    """Change nothing."""


def _no_descriptors() -> None:
    """Close the standard streams; errors still go to the soak, by a descriptor that is not 2."""
    kept = os.fdopen(os.dup(2), "w", buffering=1)
    for stream in range(FIRST_FREE):
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = None, None, kept
    threading.Thread(target=_print_to_nobody, daemon=True).start()


def _print_to_nobody() -> None:
    """Write to the standard streams, as code in C does: whoever got one would be told nonsense."""
    while True:
        for stream in (1, 2):
            try:
                os.write(stream, b"printed\n")
            except OSError:
                continue
        time.sleep(0.1)


def _ignored_children() -> None:
    """Ignore SIGCHLD: the kernel waits for children, nobody learns their exit codes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _reaper() -> None:
    """Wait for every child in a thread, as some supervisors and test runners do."""
    threading.Thread(target=_reap, daemon=True).start()


def _reap() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.01)


SURROUNDINGS: Final[dict[str, Callable[[], None]]] = {
    "usual": _usual,
    "closed descriptors": _no_descriptors,
    "ignored children": _ignored_children,
    "reaper": _reaper,
}
