"""Identity of a process: a pid alone is reused, so it comes with its start time and the boot."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from eventlog.checksum import crc32c

_PID_MAX: Final = 2**31 - 1


def boot_id() -> str:
    """A name for this run of the kernel; empty where the system has none to offer."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""


def process_start(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if there is none or it can't be told.

    The 22nd field of /proc/PID/stat (man proc_pid_stat); the second one, the program's name, may
    hold spaces and parentheses, and bytes that are no text.
    """
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
    return 0


def is_same_process(pid: int, start: int) -> bool:
    """Whether the process of that pid and start time still runs."""
    if not 0 < pid <= _PID_MAX:
        return False  # none at all, or read from damaged bytes
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and is someone else's
    return start == 0 or process_start(pid) == start


def boot_word(boot: str) -> int:
    """A boot id as one word; it is not 0, also where the system has no id to offer."""
    return 1 << 32 | crc32c(boot.encode())
