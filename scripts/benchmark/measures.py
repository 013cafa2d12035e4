"""What the kernel says of a process, read from outside of it. Linux only."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_ANONYMOUS: Final = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_SWITCHES: Final = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


def cpu_s(pids: Iterable[int]) -> float:
    """The CPU time, user and system, that these living processes have used, in seconds.

    From each process's own CPU clock, which counts nanoseconds; /proc/PID/stat has the same sum in
    ticks of 10 ms, too coarse to tell little from nothing.
    """
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """The number of a process's CPU clock; what clock_getcpuclockid(3) makes on Linux."""
    scheduler_clock = 2
    return (~pid << 3) | scheduler_clock


def anonymous_bytes(pid: int) -> int:
    """The memory that a process has for itself: resident, and no part of any mapped file."""
    match = _ANONYMOUS.search(_status(pid))
    assert match, "Linux has said this since 4.5"
    return int(match[1]) * 1024


def wake_ups(pids: Iterable[int]) -> int:
    """How often the threads of these processes have gone to sleep, and so were woken."""
    return sum(_task_switches(status) for pid in pids for status in _task_statuses(pid))


def _task_statuses(pid: int) -> list[str]:
    return [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]


def _task_switches(status: str) -> int:
    match = _SWITCHES.search(status)
    return int(match[1]) if match else 0


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def machine_cpu_s() -> float:
    """The CPU time that everything on the machine has used since it was started, in seconds."""
    user, nice, system, _, _, irq, soft_irq, *_ = map(
        int, Path("/proc/stat").read_text().split(maxsplit=11)[1:11]
    )
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """The processors that this process, and so its children, may use."""
    return len(os.sched_getaffinity(0))
