"""The surroundings that every test has, however the tests were started.

A process inherits what its starter ignores, blocks and limits: a shell that runs a command in the
background has it ignore SIGINT, `nohup` has it ignore SIGHUP, some supervisors ignore SIGCHLD. The
programs that a test starts inherit it in turn. `make_usual` is called once, before the first test.
What only the start of an interpreter can decide (locale, standard streams) is in `scripts/test`.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import Final

UMASK: Final = 0o022
DESCRIPTORS: Final = 1024
UNSET: Final = ("CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TZ")
"""What a terminal or a user would change in what programs print."""
IGNORED_BY_PYTHON: Final = {signal.SIGPIPE, signal.SIGXFSZ}


def make_usual() -> None:
    """Give this process, and so all that it starts, the usual surroundings."""
    for number in signal.valid_signals() - IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _USUAL.get(number, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(UMASK)
    for name in UNSET:
        os.environ.pop(name, None)
    time.tzset()
    _limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    # Tests let processes die of SIGSEGV and SIGABRT: their dumps would lie about.
    _limit(resource.RLIMIT_CORE, 0)


def _stay(number: int, frame: object) -> None:
    """Do nothing, as a process that ignores the signal; but a program that it starts does not."""


_USUAL: Final = {
    signal.SIGINT: signal.default_int_handler,
    # A run under `nohup` has to outlive its terminal all the same.
    signal.SIGHUP: _stay,
}


def _limit(kind: int, wanted: int) -> None:
    """Set a soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (wanted, hard))
