"""How many CPUs this process may use: those it may run on, and the quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

PROC: Final = "/proc/self/cgroup"
"""Which control groups the process is in: `hierarchy:controllers:path` on each line."""
CGROUPS: Final = "/sys/fs/cgroup"


def usable_cpus(proc: str = PROC, cgroups: str = CGROUPS) -> int:
    """As many as can be busy all the time; a part of one counts as one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        allowed = os.cpu_count() or 1
    quota = min(_quotas(proc, cgroups), default=math.inf)
    return max(min(allowed, math.ceil(quota) if quota < allowed else allowed), 1)


def _quotas(proc: str, cgroups: str) -> Iterator[float]:
    """The limits of all groups around the process, in CPUs."""
    with suppress(OSError, ValueError), open(proc, "rb") as file:
        for line in file.read().splitlines():
            _, controllers, path = os.fsdecode(line).split(":", 2)
            if not controllers:  # version 2 has one hierarchy for everything
                for folder in _folders(cgroups, path):
                    yield from _quota(f"{folder}/cpu.max")
            elif "cpu" in controllers.split(","):
                for mount in (f"{cgroups}/cpu", f"{cgroups}/{controllers}"):
                    for folder in _folders(mount, path):
                        yield from _quota(f"{folder}/cpu.cfs_quota_us", "/cpu.cfs_period_us")


def _folders(mount: str, path: str) -> Iterator[str]:
    """From the process's own group up to the mount point.

    A container that sees the path of its host finds its own group at the mount point.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield "/".join([mount, *parts[:count]])


def _quota(path: str, period: str = "") -> Iterator[float]:
    """`cpu.max` holds both numbers, or `max`; version 1 has a file for each, and -1."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        with open(path, "rb") as file:
            words = file.read().split()
        if period:
            with open(os.path.dirname(path) + period, "rb") as file:
                words += file.read().split()
        share = int(words[0]) / int(words[1])  # not a number: there is no limit
        if share > 0:
            yield share
