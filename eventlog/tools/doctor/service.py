"""The writer of a log, its socket, and what it said last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eventlog.errors import LogInUse, PermissionDenied
from eventlog.local import rendezvous
from eventlog.local.storage.control import ControlPage
from eventlog.tools.doctor.findings import Finding

LINES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The process that serves a log."""

    pid: int
    """Pid of the last writer; 0 after an orderly end."""
    is_alive: bool
    is_stopped: bool
    """By a signal or a debugger."""
    has_socket: bool
    is_listening: bool | None
    """`None` if it belongs to somebody else."""
    is_locked: bool
    """Some process holds the writer's lock, or the directory's."""
    cpus: frozenset[int] = frozenset()
    """On which the writer may run; empty if that is not known."""


def service_of(directory: str, control: ControlPage) -> Service:
    """Look; a writer notices no more than a connection that ends."""
    pid, alive = control.writer_pid, control.running_writer is not None
    listening: bool | None
    try:
        pipe = rendezvous.connect(directory)
        listening = pipe is not None
        if pipe is not None:
            pipe.close()
    except PermissionDenied:
        listening = None
    return Service(
        pid=pid,
        is_alive=alive,
        is_stopped=alive and _state_of(pid) in ("T", "t"),
        has_socket=os.path.lexists(os.path.join(directory, rendezvous.SOCKET_NAME)),
        is_listening=listening,
        is_locked=not listening and _is_locked(directory),
        cpus=_cpus_of(pid) if alive else frozenset(),
    )


def _cpus_of(pid: int) -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(pid))
    except (OSError, AttributeError):
        return frozenset()


def _state_of(pid: int) -> str:
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()
    return ""


def _is_locked(directory: str) -> bool:
    if not os.path.exists(os.path.join(directory, rendezvous.LOCK_NAME)):
        return False  # and none is made by looking
    try:
        with rendezvous.writers_locked_out(directory):
            return False
    except LogInUse:
        return True
    except PermissionDenied:
        return False


def service_findings(service: Service) -> Iterator[Finding]:
    """What that means."""
    if service.is_listening is None:
        yield Finding(
            level="problem",
            about="writer",
            what="its writer belongs to another user",
            do="use the log as its owner",
        )
    elif service.is_stopped:
        yield Finding(
            level="problem",
            about="writer",
            what=f"its writer, process {service.pid}, was stopped by a signal: whoever appends,"
            " waits",
            do=f"let it go on: kill -CONT {service.pid}",
        )
    elif service.is_listening:
        placed = ""
        if 0 < len(service.cpus) < (os.cpu_count() or 1):
            numbers = ", ".join(map(str, sorted(service.cpus)))
            placed = f", on {len(service.cpus)} of {os.cpu_count()} processors ({numbers})"
        yield Finding(level="ok", about="writer", what=f"process {service.pid} serves it{placed}")
    elif service.is_locked:
        yield Finding(
            level="warning",
            about="writer",
            what="some process holds its locks and does not listen: a writer that starts or ends,"
            " a repair, or one that hangs",
            do="look again; if it stays so, find it with: fuser {log} {log}/writer.lock",
        )
    elif service.pid:
        yield Finding(
            level="note",
            about="writer",
            what=f"no writer serves it, and the last one (process {service.pid}) died; the next one"
            " looks through what it left",
        )
    else:
        yield Finding(
            level="ok", about="writer", what="no writer serves it; the next user starts one"
        )
    if service.has_socket and service.is_listening is False and not service.is_locked:
        yield Finding(
            level="note",
            about="writer",
            what="nobody listens on its socket, which a dead writer left; the next one replaces it",
            do="eventlog doctor --fix {log}",
            remedy="socket",
        )


def said_findings(directory: str) -> Iterator[Finding]:
    """The last complaints in the writer's log file."""
    with (
        suppress(OSError),
        open(os.path.join(directory, rendezvous.LOG_NAME), errors="replace") as file,
    ):
        lines = [line.strip() for line in file if " WARNING " in line or " ERROR " in line]
        for line in lines[-LINES_SHOWN:]:
            yield Finding(level="note", about="writer", what=f"it said: {line}")
