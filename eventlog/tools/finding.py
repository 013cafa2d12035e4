"""The logs of a machine: those below a folder, and those that a writer serves now.

A log is found by its control file. One in a directory that this user may not enter is found by the
socket on which its writer listens, which the kernel shows to everybody.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eventlog.errors import EventLogError
from eventlog.local.rendezvous import SOCKET_NAME
from eventlog.local.storage.control import FILE_NAME, MAGIC
from eventlog.local.storage.owner import described_user, owner_of
from eventlog.local.storage.reading.reader import LogReader

SOCKETS: Final = "/proc/net/unix"
_LISTENS: Final = 0x10000
_THROUGH_DESCRIPTOR: Final = b"/proc/"
"""How the path begins of a socket whose own one is too long: it does not say where the log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLog:
    """A log, as far as this user may see it."""

    path: str
    is_served: bool
    """Whether a writer serves it now."""
    writer_pid: int | None = None
    first_seq_no: int | None = None
    last_seq_no: int | None = None
    bytes: int | None = None
    problem: str | None = None
    """Why the rest is not known."""


def find_logs(folder: str, *, everywhere: bool = False) -> list[FoundLog]:
    """The logs below a folder, by path; `everywhere`: those too that are served elsewhere."""
    below = os.path.realpath(folder)
    served = served_paths()
    paths = {*_logs_below(below)}
    paths |= {one for one in served if everywhere or _is_below(one, below)}
    return [_described(path, is_served=path in served) for path in sorted(paths)]


def _logs_below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        if FILE_NAME in names and _is_control(os.path.join(place, FILE_NAME)):
            yield place
            folders.clear()  # a log has none


def _is_control(path: str) -> bool:
    """Whether it is the control file of a log; one that may not be read counts."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except PermissionError:
        return True
    except OSError:
        return False


def _is_below(path: str, folder: str) -> bool:
    return os.path.join(path, "").startswith(os.path.join(folder, ""))


def served_paths(table: str = SOCKETS) -> set[str]:
    """The directories of logs whose writers listen, from the kernel's table of sockets."""
    found = set[str]()
    ending = os.fsencode(f"/{SOCKET_NAME}")
    with suppress(OSError), open(table, "rb") as lines:
        for line in lines:
            fields = line.rstrip(b"\n").split(maxsplit=7)
            if len(fields) < 8 or not fields[7].endswith(ending):
                continue
            path = fields[7].removesuffix(ending)
            if int(fields[3], 16) & _LISTENS and not path.startswith(_THROUGH_DESCRIPTOR):
                found.add(os.fsdecode(path))
    return found


def _described(path: str, *, is_served: bool) -> FoundLog:
    try:
        reader = LogReader(path)
    except EventLogError as error:
        return FoundLog(path=path, is_served=is_served, problem=_problem(path, error))
    try:
        last, first = reader.last_seq_no, reader.first_available
        pid = reader.control.running_writer
        return FoundLog(
            path=path,
            is_served=is_served or pid is not None,
            writer_pid=pid,
            first_seq_no=first if first <= last else None,
            last_seq_no=last or None,
            bytes=reader.stored_bytes(),
        )
    except EventLogError as error:
        return FoundLog(path=path, is_served=is_served, problem=str(error))
    finally:
        reader.close()


def _problem(path: str, error: EventLogError) -> str:
    """Why a log cannot be opened, in a few words where the reason is common."""
    try:
        owner = owner_of(path)
        os.stat(os.path.join(path, FILE_NAME))
    except PermissionError:
        with suppress(OSError):
            owner = os.stat(path).st_uid
            return f"you may not open it: it belongs to {described_user(owner)}"
        return "you may not open it, nor see whose it is"
    except OSError:
        return "it is not here: it was deleted, or is of another container"
    if not os.access(os.path.join(path, FILE_NAME), os.R_OK):
        return f"you may not open it: it belongs to {described_user(owner)}"
    return str(error)
