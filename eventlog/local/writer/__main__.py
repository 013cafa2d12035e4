"""`python -m eventlog.local.writer PATH`: become the writer of a log, or say why not.

A client starts it with `--detach --lock N --answer M`, perhaps with `--cpus` before, `eventlog
restart` with `--replaces` too. N
is a descriptor that holds the directory's lock (see `rendezvous`). M is the channel on which the
starter waits (see `spawn`) for one array in MessagePack: ["ready"], or ["error", name, message],
or ["broken", error, traceback]. Without a channel the writer prints `ready`, or its error to
standard error. What it says later goes to `writer.log`.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn, cast

import msgpack

from eventlog.config import LINGER_S_DEFAULT
from eventlog.errors import EventLogError
from eventlog.local import rendezvous
from eventlog.local.storage.files import FILES, os_errors
from eventlog.local.storage.formats.recovery import Damage
from eventlog.local.storage.owner import check_owner
from eventlog.local.storage.sharing import files_of
from eventlog.local.storage.starting.start import open_log
from eventlog.local.writer.placement import run_on
from eventlog.local.writer.succession import become_writer
from eventlog.system import absolute_path, hold_standard_descriptors

logger = logging.getLogger("eventlog.writer")
LOG_BYTES_MAX = 256 * 1024


def begin(start: int) -> NoReturn:
    """What a client has a new process do; `start` is the file that told it so.

    Takes its arguments as `launch` gives them: `argparse` would be a tenth of this start. And as
    nothing is left to be done after the end, the system takes back the memory: an interpreter that
    takes its modules apart needs a sixth of the start for it.
    """
    os.close(start)
    *options, _, _, lock, _, answer, path = sys.argv
    code = _be_writer(
        path,
        detach=True,
        lock=int(lock),
        answer=int(answer),
        replaces="--replaces" in options,
        cpus=options[-1] if "--cpus" in options else None,
    )
    logging.shutdown()
    os._exit(code)


def main() -> int:
    """Parse the arguments, become the writer, serve; the exit code."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m eventlog.local.writer", description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    parser.add_argument("--lock", type=int, help="a descriptor that holds the directory's lock")
    parser.add_argument("--answer", type=int, help="the descriptor on which the starter waits")
    parser.add_argument("--replaces", action="store_true", help="take the place of another one")
    parser.add_argument("--linger", type=float, default=LINGER_S_DEFAULT, help="seconds")
    parser.add_argument("--cpus", help="the processors to run on, such as 0,1 or 0-3")
    return _be_writer(**vars(parser.parse_args()))


def _be_writer(
    path: str,
    *,
    detach: bool,
    lock: int | None,
    answer: int | None,
    replaces: bool = False,
    linger: float = LINGER_S_DEFAULT,
    cpus: str | None = None,
) -> int:
    directory = absolute_path(path)
    starter = Starter(answer, _detach() if detach else None)
    try:
        check_owner(directory)  # before there is a file of ours in it
        _log_to_file(directory)
        if cpus is not None:
            run_on(cpus, directory)
        serve(
            directory,
            linger_s=linger,
            lock=None if lock is None else rendezvous.Lock(lock),
            gives_way=detach,
            replaces=replaces,
            on_ready=starter.say_ready,
        )
    except EventLogError as error:
        logger.error("%s", error)
        starter.say("error", type(error).__name__, str(error))
        if answer is None:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except Exception as error:
        logger.exception("the writer failed")
        starter.say("broken", f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    return 0


def serve(
    directory: str,
    *,
    linger_s: float | None,
    lock: rendezvous.Lock | None = None,
    gives_way: bool = False,
    replaces: bool = False,
    waits: bool = False,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Be the writer of the log until the end; the log must exist.

    A writer that `gives_way` leaves for one that `replaces`; see `succession`.

    Raises:
        WriterUnavailable: another process is the writer.
        EventLogError: the log cannot be opened, or nothing more could be stored.
    """
    import trio  # noqa: F401 - takes long, and nobody is to be without a writer meanwhile

    hold_standard_descriptors()
    rendezvous.check_file_system(directory)
    _raise_descriptor_limit()
    check_owner(directory)
    signal.signal(signal.SIGTERM, _leave)
    writer_lock, listener = become_writer(directory, lock, replaces=replaces, waits=waits)
    try:
        _run(directory, listener, linger_s, on_ready, gives_way=gives_way)
    finally:
        # Only the holder of the lock may remove the socket: it cannot be a later writer's.
        lock_path = os.path.join(directory, rendezvous.LOCK_NAME)
        if FILES.has_name(writer_lock.descriptor, lock_path):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, rendezvous.SOCKET_NAME))
        writer_lock.release()


def _run(
    directory: str,
    listener: socket.socket,
    linger_s: float | None,
    on_ready: Callable[[], None],
    *,
    gives_way: bool,
) -> None:
    import trio

    from eventlog.local.writer.server import Server

    log = open_log(directory, files_of(directory))
    logger.info("writer of %s, epoch %d", directory, log.control.epoch)
    for damage in log.damages:
        logger.warning("%s", describe(damage, log.last_seq_no))
    for warning in log.warnings:
        logger.warning("%s", warning)
    server = Server(log, listener, linger_s=linger_s, gives_way=gives_way)
    # A signal that comes now is the server's, which ends in order as soon as it listens to signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    trio.run(server.run, on_ready)
    if log.failure is not None:
        raise log.failure
    logger.info("ended in order")


def _leave(number: int, _: object) -> NoReturn:
    """At SIGTERM before the writer serves: let go of what it holds."""
    # Python ignores an exception in a destructor or a callback of the garbage collector, where
    # this may run. The signal then waits for the server, which ends in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)
    logger.info("ending on %s before it served", signal.Signals(number).name)
    sys.exit(0)


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


def _detach() -> int:
    """Go on in a child, before any thread or trio is running; what to close when it serves.

    The parent stays until then, and waits for a child that ends before: nobody else would, if the
    starter is the first process of a container.
    """
    ready, starter = os.pipe()
    child = os.fork()
    if child:
        os.close(starter)
        if not os.read(ready, 1):
            os.waitpid(child, 0)
        os._exit(0)
    os.close(ready)
    return starter


def _log_to_file(directory: str) -> None:
    """Log to `writer.log`, which is kept small."""
    os.umask(0o077)
    with os_errors(directory, "opening the writer's log file"):
        handler = _LogFile(
            os.path.join(directory, rendezvous.LOG_NAME), maxBytes=LOG_BYTES_MAX, backupCount=1
        )
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format="%(asctime)s %(process)d %(levelname)s %(message)s",
    )


class _LogFile(logging.handlers.RotatingFileHandler):
    """A file of log lines, and never what a link in its place leads to."""

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

        opened = open(self.baseFilename, self.mode, encoding="utf-8", opener=opener)  # noqa: SIM115
        return cast("TextIOWrapper", opened)


class Starter:
    """Whoever started this writer and waits for its answer."""

    def __init__(self, channel: int | None, parent: int | None) -> None:
        self._channel = channel
        self._parent = parent
        """A pipe to the process that detached this one: it ends when it hears that we serve."""

    def say_ready(self) -> None:
        """Let the starter go on, and keep nothing of its terminal."""
        if self._channel is None:
            with suppress(OSError):  # a starter that was killed is no reason not to serve
                os.write(1, rendezvous.READY)
        self.say("ready")
        if self._parent is not None:
            with suppress(OSError):
                os.write(self._parent, rendezvous.READY)
            os.close(self._parent)
            self._parent = None
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        os.chdir("/")

    def say(self, *words: str) -> None:
        """Answer, once; a starter that is gone needs no answer."""
        if self._channel is not None:
            with suppress(OSError):
                os.write(self._channel, msgpack.packb(words, unicode_errors="surrogateescape"))
            os.close(self._channel)
            self._channel = None


if __name__ == "__main__":
    sys.exit(main())
