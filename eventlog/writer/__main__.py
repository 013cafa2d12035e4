"""`python -m eventlog.writer PATH`: become the writer of a log, or say why not.

A client starts it with `--detach --lock N`: N is a descriptor that holds the directory's lock (see
`rendezvous`). The starter reads standard output to its end: `ready`, or else
the error, as a MessagePack array [error name, message]. After that the output goes to `writer.log`.
"""

from __future__ import annotations

import argparse
import logging
import logging.handlers
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import msgpack

from eventlog import rendezvous
from eventlog.config import LINGER_S_DEFAULT
from eventlog.errors import EventLogError, WriterUnavailable
from eventlog.storage.files import FILES, os_errors
from eventlog.storage.recovery import Damage
from eventlog.storage.start import open_log

logger = logging.getLogger("eventlog.writer")
LOG_BYTES_MAX = 256 * 1024


def main() -> int:
    """Parse the arguments, become the writer, serve; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m eventlog.writer", description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--lock", type=int, help="a descriptor that holds the directory's lock")
    parser.add_argument("--linger", type=float, default=LINGER_S_DEFAULT, help="seconds")
    arguments = parser.parse_args()
    directory = os.path.abspath(arguments.path)
    if arguments.detach:
        _detach()
    try:
        _log_to_file(directory)
        serve(directory, linger_s=arguments.linger, lock=arguments.lock, on_ready=_say_ready)
    except EventLogError as error:
        logger.error("%s", error)
        _say_error(error)
        return 1
    except Exception:
        logger.exception("the writer failed")
        raise
    return 0


def serve(
    directory: str,
    *,
    linger_s: float | None,
    lock: int | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Be the writer of the log until the end; the log must exist.

    Raises:
        WriterUnavailable: another process is the writer.
        EventLogError: the log cannot be opened, or nothing more could be stored.
    """
    rendezvous.check_file_system(directory)
    _raise_descriptor_limit()
    directory_lock = rendezvous.lock_directory(directory) if lock is None else lock
    assert directory_lock is not None
    try:
        _check_nobody_listens(directory)
        writer_lock = rendezvous.lock_writer(directory)
        # Before recovery, which may take a while: who connects now waits in the backlog.
        listener = rendezvous.listen(directory)
    finally:
        os.close(directory_lock)
    try:
        _run(directory, listener, linger_s, on_ready)
    finally:
        # Only the holder of the lock may remove the socket: it cannot be a later writer's.
        if FILES.has_name(writer_lock, os.path.join(directory, rendezvous.LOCK_NAME)):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, rendezvous.SOCKET_NAME))
        os.close(writer_lock)


def _check_nobody_listens(directory: str) -> None:
    other = rendezvous.connect(directory)
    if other is not None:
        other.close()
        raise WriterUnavailable(
            f"the log {directory} already has a writer; `eventlog status {directory}` shows it",
            path=directory,
        )


def _run(
    directory: str,
    listener: socket.socket,
    linger_s: float | None,
    on_ready: Callable[[], None],
) -> None:
    import trio

    from eventlog.writer.server import Server

    log = open_log(directory)
    logger.info("writer of %s, epoch %d", directory, log.control.epoch)
    for damage in log.damages:
        logger.warning("%s", describe(damage, log.last_seq_no))
    for warning in log.warnings:
        logger.warning("%s", warning)
    server = Server(log, listener, linger_s=linger_s)
    trio.run(server.run, on_ready)
    if log.failure is not None:
        raise log.failure
    logger.info("ended in order")


def describe(damage: Damage, last_seq_no: int) -> str:
    """A damage in words, for the log file."""
    if damage.last_seq_no is None:
        return f"cut a torn tail after event {last_seq_no}: {damage.reason}"
    return (
        f"the events {damage.first_seq_no} to {damage.last_seq_no} are damaged and not served:"
        f" {damage.reason}"
    )


def _raise_descriptor_limit() -> None:
    """Allow as many connections as the system does: the usual limit is there for `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _detach() -> None:
    """Go on in a child that nobody has to wait for; before any thread or trio is running."""
    if os.fork():
        os._exit(0)


def _log_to_file(directory: str) -> None:
    """Log to `writer.log`, which is kept small."""
    os.umask(0o077)
    with os_errors(directory, "opening the writer's log file"):
        handler = logging.handlers.RotatingFileHandler(
            os.path.join(directory, rendezvous.LOG_NAME), maxBytes=LOG_BYTES_MAX, backupCount=1
        )
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(process)d %(levelname)s %(message)s",
    )


def _say_ready() -> None:
    """Let the starter go on, and keep nothing of its terminal."""
    os.write(1, rendezvous.READY)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    os.chdir("/")


def _say_error(error: EventLogError) -> None:
    sys.stdout.buffer.write(msgpack.packb([type(error).__name__, str(error)]))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
