"""On which processors a writer runs."""

from __future__ import annotations

import os
from typing import Final

from eventlog.errors import InvalidConfig

CPU_MAX: Final = 65_535
"""More than any system has."""


def run_on(cpus: str, directory: str) -> None:
    """Have this process run on these processors alone: their numbers, as in "0,2" or "0-3".

    Raises:
        InvalidConfig: they are no numbers, or the system has no such processors for it.
    """
    try:
        os.sched_setaffinity(0, numbers_of(cpus))
    except (OSError, ValueError, OverflowError) as error:
        usable = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise InvalidConfig(
            f"the writer of the log {directory} cannot run on the processors {cpus!r}: {error};"
            f" give numbers of those that it may use, which are {usable} here",
            path=directory,
        ) from error
    except AttributeError as error:
        raise InvalidConfig(
            "this system does not place processes on processors; leave the option out",
            path=directory,
        ) from error


def numbers_of(cpus: str) -> set[int]:
    """The numbers in such a text.

    Raises:
        ValueError: it is none.
    """
    numbers = set[int]()
    for part in cpus.split(","):
        first, dash, last = part.strip().partition("-")
        run = range(int(first), int(last if dash else first) + 1)
        if not run or run[-1] > CPU_MAX:
            raise ValueError(f"{part.strip()} names no processors")
        numbers.update(run)
    return numbers
