"""How a process becomes the writer of a log, and what becomes of the writer before it.

Whoever becomes the writer holds the directory's lock until it listens, so nobody else starts one:

==============================  ===================================================================
what is found                   what is done
==============================  ===================================================================
nobody listens                  wait for the writer's lock: its holder, if any, is ending
nobody can reach the holder     its socket was removed: SIGTERM ends it
a writer that clients started   with `replaces`: ask it to leave (`StandDown`), one of an older
                                protocol by SIGTERM; its clients find the next one by themselves
a writer that was told to serve  `WriterUnavailable`, or with `waits` wait until it has ended
==============================  ===================================================================
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import Final

from eventlog.errors import EventLogError, ProtocolError, WriterUnavailable
from eventlog.local import rendezvous
from eventlog.local.rendezvous import Lock
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.identity import is_same_process, process_start
from eventlog.local.storage.owner import check_owner
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Done,
    Failed,
    Hello,
    StandDown,
)
from eventlog.local.wire.table import Role

logger = logging.getLogger("eventlog.writer")

ANSWER_S_MAX: Final = 10.0
"""How long a writer may take to say whether it leaves: it may be in the middle of a sync."""
END_S_MAX: Final = 60.0
"""How long a writer may take to end: its last sync may be of much."""
UNREACHABLE_S: Final = 0.1
"""How long the lock may be held by a writer whose socket has no name: it removes it, then ends."""
LOOK_AGAIN_S: Final = 0.01
REMOVED_S: Final = 1.0
ENDS_MAX: Final = 20
"""Writers of an earlier release, each started by its clients at once after the end of the last."""
_FRAME_BYTES_MAX: Final = 64 * 1024


def become_writer(
    directory: str, lock: Lock | None = None, *, replaces: bool = False, waits: bool = False
) -> tuple[Lock, socket.socket]:
    """The writer's lock and its socket; `lock` is the directory's, if the caller has it.

    Raises:
        WriterUnavailable: another process is the writer, and stays it.
    """
    while True:
        held = lock or rendezvous.lock_directory(directory)
        lock = None
        try:
            other = rendezvous.connect(directory)
            if other is None:
                return _follow(directory)
            with other:
                if replaces and _stands_down(other, directory):
                    return _follow(directory)
                held.release()
                if replaces and is_of_clients(other):
                    _end_older(other, directory)
                elif not waits:
                    raise _already_served(other, directory)
        finally:
            held.release()
        if waits:
            _await_end(directory)


def end_writer(directory: str) -> tuple[int | None, Lock]:
    """End the writer in order; its process, and the directory's lock, which keeps the next one out.

    A writer that was told to serve is ended by SIGTERM, as its supervisor does it; another one may
    serve then before the lock is this process's again.

    Raises:
        PermissionDenied: the log belongs to another user.
        WriterUnavailable: it does not end.
    """
    check_owner(directory)
    ended: int | None = None
    for _ in range(ENDS_MAX):
        held = rendezvous.lock_directory(directory)
        try:
            other = rendezvous.connect(directory)
            if other is None:
                _lock_of_writer(directory).release()
                return ended, held
            with other:
                pid, _ = rendezvous.peer_of(other)
                ended = ended or pid
                if _stands_down(other, directory):
                    _lock_of_writer(directory).release()
                    return ended, held
                held.release()
                is_told = not is_of_clients(other)
                if not pid:
                    raise _out_of_sight(directory)
                _end_older(other, directory)
        except BaseException:
            held.release()
            raise
        if is_told:
            return ended, rendezvous.lock_directory(directory)
    raise WriterUnavailable(
        f"programs of an earlier release start a writer of the log {directory} as often as one is"
        " ended; end those programs first",
        path=directory,
    )


def _out_of_sight(directory: str) -> WriterUnavailable:
    return WriterUnavailable(
        f"the writer of the log {directory} was told to serve, and runs where this process cannot"
        " see it, such as in another container; stop it there",
        path=directory,
    )


def _follow(directory: str) -> tuple[Lock, socket.socket]:
    lock = _lock_of_writer(directory)
    # Before recovery, which may take a while: who connects now waits in the backlog.
    return lock, rendezvous.listen(directory)


def _already_served(other: socket.socket, directory: str) -> WriterUnavailable:
    pid, _ = rendezvous.peer_of(other)
    return WriterUnavailable(
        f"the log {directory} already has a writer, process {pid}; stop that one first, or let"
        " `eventlog serve --wait` wait for its end",
        path=directory,
    )


# --- a writer that listens ------------------------------------------------------------------------


def _stands_down(pipe: socket.socket, directory: str) -> bool:
    """Whether the writer at the other end leaves when asked; it is then ending."""
    connection = Connection(Role.CLIENT, _FRAME_BYTES_MAX)
    hello = Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid())
    pipe.settimeout(ANSWER_S_MAX)
    with suppress(OSError, ProtocolError):  # from a writer of a release that does not know it
        pipe.sendall(frame(hello) + frame(StandDown(1)))
        while data := pipe.recv(_FRAME_BYTES_MAX):
            for message in connection.receive(data):
                if isinstance(message, Done):
                    pid, _ = rendezvous.peer_of(pipe)
                    logger.info("process %d, the writer of %s so far, leaves", pid, directory)
                    return True
                if isinstance(message, Failed):
                    return False
    return False


def is_of_clients(pipe: socket.socket) -> bool:
    """Whether the writer at the other end, which does not leave when asked, was not told to serve.

    Its command line says so; the process of another PID namespace has none that could be seen.
    """
    pid, _ = rendezvous.peer_of(pipe)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"--detach" in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile, unless it is hidden
        return pid > 0
    except OSError:
        return False


def _end_older(pipe: socket.socket, directory: str) -> None:
    """End a writer by SIGTERM; it takes the directory's lock for that."""
    pid, _ = rendezvous.peer_of(pipe)
    start = process_start(pid)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended
        return
    except (OSError, AttributeError):  # a kernel without pidfds
        raise _does_not_end(pid, directory) from None
    logger.info("ending process %d, the writer of %s so far", pid, directory)
    try:
        _terminate(pid, start)
        # Not for the end of the pipe: it was closed already, by the question that is not known.
        ended = select.poll()
        ended.register(process, select.POLLIN)
        if not ended.poll(END_S_MAX * 1000):
            raise _does_not_end(pid, directory)
    finally:
        os.close(process)


def _await_end(directory: str) -> None:
    """Wait until no process is the writer."""
    path = os.path.join(directory, rendezvous.LOCK_NAME)
    try:
        lock = Lock(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:  # somebody has removed it, and it can be waited for no more
        time.sleep(REMOVED_S)
        return
    lock.acquire(wait=True)
    lock.release()


# --- a writer that does not listen ----------------------------------------------------------------


def _lock_of_writer(directory: str) -> Lock:
    """The writer's lock, when its holder has ended. Nobody listens, so it is ending or cut off."""
    started, is_told = time.monotonic(), False
    while True:
        lock = rendezvous.try_lock_writer(directory)
        if lock is not None:
            return lock
        waited_s = time.monotonic() - started
        if waited_s > UNREACHABLE_S and not is_told and not rendezvous.has_socket(directory):
            is_told = True
            pid, start = _last_writer(directory)
            logger.warning("the writer's socket was removed: ending the writer, process %d", pid)
            _terminate(pid, start)
        if waited_s > END_S_MAX:
            raise _does_not_end(_last_writer(directory)[0], directory)
        time.sleep(LOOK_AGAIN_S)


def _last_writer(directory: str) -> tuple[int, int]:
    """Process and start time of the writer that the control page names; zeros without one."""
    with suppress(EventLogError):
        control = ControlPage(directory)
        try:
            return control.running_writer or 0, control.writer_start
        finally:
            control.close()
    return 0, 0


def _terminate(pid: int, start: int) -> None:
    """SIGTERM for that very process."""
    with suppress(OSError, AttributeError):
        descriptor = os.pidfd_open(pid)
        try:
            if start and is_same_process(pid, start):  # looked at after the descriptor names it
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        finally:
            os.close(descriptor)


def _does_not_end(pid: int, directory: str) -> WriterUnavailable:
    who = f"process {pid}" if pid else "some process (`fuser` on writer.lock there names it)"
    return WriterUnavailable(
        f"{who} holds the writer's lock of the log {directory}, does not listen, and did not end"
        f" within {END_S_MAX:.0f} s; end it by force (kill -KILL): nothing that is stored is lost",
        path=directory,
    )
