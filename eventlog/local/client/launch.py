"""Finding the log's writer, or starting one. Blocking calls; the asynchronous shell uses a thread.

Whoever finds nobody listening takes the directory's lock, looks again, and starts a writer that
inherits the lock until it listens: of all that race, one starts it and the others find it.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final, Self

import msgpack

from eventlog import errors, spawn
from eventlog.api.refusals import closed
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import EventLogError, LogDeleted, LogNotFound, WriterUnavailable
from eventlog.local import rendezvous
from eventlog.local.client.adoption import await_adopted
from eventlog.local.client.conversations import Channel
from eventlog.local.storage.control import is_log
from eventlog.local.storage.owner import check_owner, described_user, owner_of
from eventlog.local.storage.sharing import described_group, shared_with
from eventlog.local.storage.starting.start import make_directory, make_log
from eventlog.spawn import CannotStart
from eventlog.system import hold_standard_descriptors

AWAIT_WRITER_S: Final = 10.0
"""How long a handle that starts no writer waits for the next one after the end of the last: longer
than a supervisor's pause and a start."""
LOOK_AGAIN_S: Final = 0.02
STARTS_MAX: Final = 5
"""A writer that is killed while it starts is started again so often, by each who needs it."""
READ_BYTES: Final = 64 * 1024
SAID_BYTES_MAX: Final = 2000
"""How much of what a failed writer printed is quoted."""


def prepare(directory: str, asked: AskedOptions, first_seq_no: int = 1) -> None:
    """Make the log if there is none; its first event gets that number.

    Raises:
        NotALog, PermissionDenied, InvalidConfig, UnsupportedFileSystem: it cannot be made.
    """
    if is_log(directory):
        return
    LogOptions.of(asked)  # refuses what contradicts itself, before a directory is left behind
    make_directory(directory)
    rendezvous.check_file_system(directory)
    lock = rendezvous.lock_directory(directory)
    try:
        make_log(directory, asked, first_seq_no=first_seq_no)
    finally:
        lock.release()


def find_for(channel: Channel) -> socket.socket:
    """A pipe to the log's writer for this conversation; started if need be, unless it says no.

    Raises:
        WriterUnavailable: none could be started, or this channel starts none.
        LogDeleted, PermissionDenied: as `find_or_start`.
    """
    if channel.starts_writer:
        return find_or_start(channel.path, channel.writer_cpus)
    return await_adopted(_find_running(channel))


def _find_running(channel: Channel) -> socket.socket:
    """A pipe to the writer that somebody else runs; one that has just ended has a follower soon."""
    directory = channel.path
    end_s = time.monotonic() + (AWAIT_WRITER_S if channel.was_open else 0.0)
    while (pipe := rendezvous.connect(directory)) is None:
        if channel.is_closed:
            raise closed("handle", directory)
        if not is_log(directory):
            raise _deleted(directory)
        if time.monotonic() >= end_s:
            raise _nobody_serves(directory)
        time.sleep(LOOK_AGAIN_S)  # whoever starts it does not know who waits
    return pipe


def _nobody_serves(directory: str) -> WriterUnavailable:
    gid = shared_with(directory)
    why = "this handle starts none (start_writer=False)"
    if gid is not None:
        owner = described_user(owner_of(directory))
        why = f"it is shared with {described_group(gid)}, so that only its owner, {owner}, runs one"
    return WriterUnavailable(
        f"no writer serves the log {directory}, and {why}; run: eventlog serve"
        f" {shlex.quote(directory)}",
        path=directory,
    )


def find_or_start(directory: str, cpus: Collection[int] = ()) -> socket.socket:
    """A pipe to the log's writer; one that is started runs on these processors, if any are given.

    Raises:
        WriterUnavailable: none could be started.
        LogDeleted: there is no log any more.
        PermissionDenied: the log belongs to somebody else.
    """
    try:
        pipe = rendezvous.connect(directory)
        for _ in range(STARTS_MAX):
            if pipe is not None:
                return await_adopted(pipe)
            pipe = _start_and_connect(directory, cpus)
    except LogNotFound as error:
        raise _deleted(directory) from error
    if pipe is not None:
        return await_adopted(pipe)
    raise WriterUnavailable(
        f"{STARTS_MAX} writers of {directory}, one after the other, were killed or ended right at"
        f" their start; see {rendezvous.LOG_NAME} there",
        path=directory,
    )


def _start_and_connect(directory: str, cpus: Collection[int]) -> socket.socket | None:
    """A pipe to a writer, started if need be; `None` if that one was killed before it served."""
    if not is_log(directory):
        raise _deleted(directory)
    check_owner(directory)
    lock = rendezvous.lock_directory(directory)
    try:
        pipe = rendezvous.connect(directory)
        if pipe is None:
            start_writer(directory, lock.descriptor, cpus=cpus)
    except BaseException:
        lock.hand_over()  # a writer that was started, and not waited for, still needs it
        raise
    lock.release()
    return pipe or rendezvous.connect(directory)


def _deleted(directory: str) -> LogDeleted:
    return LogDeleted(
        f"the log {directory} was deleted while it was in use; open it again to make a new one",
        path=directory,
    )


def start_writer(
    directory: str, lock: int, *, replaces: bool = False, cpus: Collection[int] = ()
) -> None:
    """Start a writer in the background and wait until it serves, or is killed.

    One that `replaces` lets the writer that clients started leave, once it is ready itself.

    Raises:
        EventLogError: what it said instead.
    """
    try:
        placed = ["--cpus", ",".join(map(str, sorted(set(cpus))))] if cpus else []
        start = _WriterStart(directory, lock, ["--replaces"] * replaces + placed)
    except (CannotStart, OSError) as error:
        raise _not_started(directory, str(error)) from error
    with start:
        answer = start.wait()
    match answer:
        case ["ready"]:
            return
        case ["error", WriterUnavailable.__name__, str()] if not replaces:
            # Another one is there, or was: the lock may be that of a directory that was deleted,
            # and made again by somebody else. The caller looks again.
            return
        case ["error", str(name), str(message)]:
            raise _reported(name, message, directory)
        case ["broken", str(message), str()]:
            raise _not_started(
                directory,
                f"{sys.executable} cannot run it: {message}; install what is missing for that"
                " interpreter, or put it on sys.path of this process",
            )
    if start.was_killed:
        return
    if not start.is_alive:
        raise _not_started(directory, f"{start.silence}; {spawn.hint()}")
    if start.said:
        raise WriterUnavailable(
            f"the writer of {directory} could not start: {start.said}", path=directory
        )


def _not_started(directory: str, reason: str) -> WriterUnavailable:
    return WriterUnavailable(
        f"no writer could be started for {directory}: {reason}; or start one with:"
        f" eventlog serve {shlex.quote(directory)}",
        path=directory,
    )


class _WriterStart:
    """A writer on its way: what it answers, and what it prints instead."""

    def __init__(self, directory: str, lock: int, options: list[str]) -> None:
        self.is_alive = False
        """It runs Python."""
        self.was_killed = False
        """By a signal that was not ours."""
        self._has_answered = False
        self._messages = msgpack.Unpacker()
        self._said = b""
        hold_standard_descriptors()
        self._channel, channel = os.pipe()
        try:
            self._errors, errors = os.pipe()
        except BaseException:
            os.close(self._channel)
            os.close(channel)
            raise
        options = [*options, "--detach", "--lock", str(lock), "--answer", str(channel)]
        try:
            self._pid = spawn.start(
                "eventlog.local.writer.__main__",
                "begin",
                ["eventlog.local.writer", *options, directory],
                channel=channel,
                keep=[lock],
                script_folder_last=True,
                in_background=True,
                errors=errors,
            )
        except BaseException:
            os.close(self._channel)
            os.close(self._errors)
            raise
        finally:
            os.close(channel)
            os.close(errors)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give everything back; what has not answered by now is ended."""
        os.close(self._channel)
        os.close(self._errors)
        with suppress(ChildProcessError):  # somebody else waits for all children
            if self._has_answered:
                os.waitpid(self._pid, 0)  # it has detached itself, or failed: it ends
                return
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self.was_killed = os.WIFSIGNALED(status)
                return
            # A program that is no writer may have started others, in the session that is ours.
            send = os.kill if self.is_alive else os.killpg
            with suppress(ProcessLookupError):
                send(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _wait_for_end(self, seconds: float) -> None:
        """Its channel is closed: it has ended, or soon will have, if it is a writer."""
        with suppress(OSError, AttributeError):  # no pidfds here: it is ended at once
            watched = os.pidfd_open(self._pid)
            try:
                poll = select.poll()  # `select` knows only the first 1,024 descriptors
                poll.register(watched, select.POLLIN)
                poll.poll(max(seconds, 0.0) * 1000)
            finally:
                os.close(watched)

    def wait(self) -> list[Any] | None:
        """Its answer; `None` if it ended, or said nothing for too long, without one."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._errors, select.POLLIN)
        deadline_s = time.monotonic() + spawn.ANSWER_S
        is_open = True
        while is_open or poll.poll(0):  # at the end, what it printed before
            left_s = deadline_s - time.monotonic()
            if not self.is_alive and left_s <= 0:
                return None
            for descriptor, _ in poll.poll(None if self.is_alive else left_s * 1000):
                data = os.read(descriptor, READ_BYTES)
                if not data:
                    poll.unregister(descriptor)
                if descriptor == self._errors:
                    self._said = (self._said + data)[-SAID_BYTES_MAX:]
                elif not data:
                    is_open = False
                elif (answer := self._heard(data)) is not None:
                    self._has_answered = True
                    return answer
        self._wait_for_end(deadline_s - time.monotonic())
        return None

    def _heard(self, data: bytes) -> list[Any] | None:
        self._messages.feed(data)
        for message in self._messages:
            if message != ["alive"]:
                return list(message)
            self.is_alive = True
        return None

    @property
    def said(self) -> str:
        """The end of what it printed as errors; call it after the end of the process."""
        return self._said.decode(errors="replace").strip()

    @property
    def silence(self) -> str:
        """Why nothing came."""
        said = f" and said: {self.said}" if self.said else ""
        return f"{sys.executable!r} (sys.executable) did not answer as Python{said}"


def _reported(name: str, message: str, directory: str) -> EventLogError:
    """The error that the writer reported."""
    kind = getattr(errors, name, WriterUnavailable)
    if kind in (errors.CorruptLog, errors.UnknownFormat, errors.PermissionDenied, errors.NotALog):
        return kind(message, path=directory)  # type: ignore[no-any-return]
    if kind is errors.LogFull:
        return errors.LogFull(message, path=directory)
    return WriterUnavailable(
        f"no writer could be started for {directory}: {message}", path=directory
    )
