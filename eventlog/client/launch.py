"""Finding the log's writer, or starting one. Blocking calls; the asynchronous shell uses a thread.

Whoever finds nobody listening takes the directory's lock, looks again, and starts a writer that
inherits the lock until it listens: of all that race, one starts it and the others find it.
"""

from __future__ import annotations

import os
import site
import socket
import subprocess
import sys
from typing import Final

import msgpack

import eventlog
from eventlog import errors, rendezvous
from eventlog.config import AskedOptions
from eventlog.errors import EventLogError, LogDeleted, LogNotFound, WriterUnavailable
from eventlog.rendezvous import READY
from eventlog.storage.control import is_log
from eventlog.storage.start import make_directory, make_log

STARTS_MAX: Final = 5
"""A writer that is killed while it starts is started again so often, by each who needs it."""


def prepare(directory: str, asked: AskedOptions) -> None:
    """Make the log if there is none.

    Raises:
        NotALog, PermissionDenied, InvalidConfig, UnsupportedFileSystem: it cannot be made.
    """
    if is_log(directory):
        return
    make_directory(directory)
    rendezvous.check_file_system(directory)
    lock = rendezvous.lock_directory(directory)
    assert lock is not None
    try:
        make_log(directory, asked)
    finally:
        os.close(lock)


def find_or_start(directory: str) -> socket.socket:
    """A pipe to the log's writer.

    Raises:
        WriterUnavailable: none could be started.
        LogDeleted: there is no log any more.
        PermissionDenied: the log belongs to somebody else.
    """
    try:
        pipe = rendezvous.connect(directory)
        for _ in range(STARTS_MAX):
            if pipe is not None:
                return pipe
            pipe = _start_and_connect(directory)
    except LogNotFound as error:
        raise _deleted(directory) from error
    if pipe is not None:
        return pipe
    raise WriterUnavailable(
        f"{STARTS_MAX} writers of {directory}, one after the other, were killed or ended right at"
        f" their start; see {rendezvous.LOG_NAME} there",
        path=directory,
    )


def _start_and_connect(directory: str) -> socket.socket | None:
    """A pipe to a writer, started if need be; `None` if that one was killed before it served."""
    if not is_log(directory):
        raise _deleted(directory)
    lock = rendezvous.lock_directory(directory)
    assert lock is not None
    try:
        pipe = rendezvous.connect(directory)
        if pipe is not None:
            return pipe
        start_writer(directory, lock)
    finally:
        os.close(lock)
    return rendezvous.connect(directory)


def _deleted(directory: str) -> LogDeleted:
    return LogDeleted(
        f"the log {directory} was deleted while it was in use; open it again to make a new one",
        path=directory,
    )


def start_writer(directory: str, lock: int) -> None:
    """Start a writer in the background and wait until it serves, or is killed.

    Raises:
        EventLogError: what it said instead.
    """
    command = [sys.executable, "-m", "eventlog.writer", "--detach", "--lock", str(lock), directory]
    try:
        started = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            pass_fds=[lock],
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise WriterUnavailable(
            f"no writer could be started for {directory}: {error}", path=directory
        ) from error
    if started.stdout and started.stdout != READY:
        raise _reported(started.stdout, directory)
    last_lines = started.stderr.decode(errors="replace").strip()[-2000:]
    if last_lines and not started.stdout:
        raise WriterUnavailable(
            f"the writer of {directory} could not start: {last_lines}", path=directory
        )


def _environment() -> dict[str, str]:
    """The writer must be of this very package, wherever this process imported it from."""
    environment = dict(os.environ)
    environment["PYTHONSAFEPATH"] = "1"
    home = os.path.dirname(os.path.dirname(os.path.abspath(eventlog.__file__)))
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = home + (os.pathsep + others if others else "")
    return environment


def _reported(output: bytes, directory: str) -> EventLogError:
    """The error that the writer reported."""
    try:
        name, message = msgpack.unpackb(output)
    except ValueError:
        name, message = "", output.decode(errors="replace")
    kind = getattr(errors, str(name), WriterUnavailable)
    if kind in (errors.CorruptLog, errors.UnknownFormat, errors.PermissionDenied, errors.NotALog):
        return kind(message, path=directory)  # type: ignore[no-any-return]
    if kind is errors.LogFull:
        return errors.LogFull(message, path=directory)
    return WriterUnavailable(
        f"no writer could be started for {directory}: {message}", path=directory
    )
