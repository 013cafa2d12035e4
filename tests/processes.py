"""The processes of this machine, found by what they were started with."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Literal


def processes_with(wanted: bytes, where: Literal["cmdline", "environ"]) -> dict[int, bytes]:
    """All others that have it in their arguments or in their environment, which are the values.

    A machine has hundreds, and each test looks: most are told from ours by one search.
    """
    found: dict[int, bytes] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        data = words_of(int(name), where)
        if wanted in data and int(name) != os.getpid():
            found[int(name)] = data
    return found


def words_of(pid: int, where: Literal["cmdline", "environ"]) -> bytes:
    """What stands there, words end with a null byte; nothing of a process that has ended."""
    return read(f"/proc/{pid}/{where}")


def read(path: str) -> bytes:
    """A file of `/proc`, which goes with its process; every test reads some of them."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY)
        try:
            return b"".join(iter(lambda: os.read(file, 1 << 17), b""))
        finally:
            os.close(file)
    return b""
