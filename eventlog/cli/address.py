"""What a command is given as its log: a directory, or the address of an engine.

A command that only reads takes a directory without its writer: none is asked, and none is started.
A log of another engine is opened as any program opens it. `readable` is the one place that decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Annotated

import typer

from eventlog import blocking
from eventlog.api.engines import MEMORY, check_address, is_directory
from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.latest import filter_of_key
from eventlog.api.positions import ConsumerState, SeekPosition
from eventlog.api.refusals import no_group
from eventlog.api.stream_options import StreamOptions
from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode, decode_any
from eventlog.local.client.feed import Feed
from eventlog.local.groups.stored import read_dead_letters, read_groups, read_states
from eventlog.local.storage.control import check_is_log
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.system import absolute_path

Log = Annotated[str, typer.Argument(help="The log: its directory, or an engine's address.")]
MadeLog = Annotated[
    str,
    typer.Argument(help="The log: its directory, or an engine's address; made if there is none."),
]
LogFiles = Annotated[str, typer.Argument(help="The log's directory.")]


def check_usable(log: str) -> str:
    """The address, if a log that may be made there outlives the command.

    Raises:
        InvalidArgument: it would live in the memory of the command.
    """
    if check_address(log).startswith(MEMORY):
        raise InvalidArgument(
            f"the log {log} would live in the memory of this command and end with it; give a"
            " directory (one in /dev/shm is memory too)",
            path=log,
        )
    return log


def check_there(log: str) -> str:
    """The same, and a directory has to hold a log; what an address holds, its engine says.

    Raises:
        LogNotFound, NotALog: the directory holds none.
    """
    if not log or is_directory(log):
        check_is_log(log)
    return check_usable(log)


def check_directory(log: str, command: str) -> str:
    """The absolute path of a log whose files the command is about.

    Raises:
        InvalidArgument: it is the address of another engine, which keeps no such files.
    """
    if log and not is_directory(log):
        raise InvalidArgument(
            f"{command} is about the files of a log, and {log} is the address of another engine;"
            " give a directory",
            path=log,
        )
    return absolute_path(log)


class Readable(ABC):
    """What commands read of a log."""

    @abstractmethod
    def bounds(self) -> tuple[int, int]:
        """The first event that is stored, and the one after the last."""

    @abstractmethod
    def stored_from(self, position: SeekPosition) -> Generator[EventEnvelope]:
        """What is stored now, from the position on."""

    def number_at(self, position: SeekPosition) -> int | None:
        """The number of the first event that is stored from the position on."""
        with closing(self.stored_from(position)) as events:
            return next((envelope.seq_no for envelope in events), None)

    @abstractmethod
    def batches(
        self, start: int, stop: int, key: str | None = None, decode: Decode = decode_any
    ) -> Iterator[list[EventEnvelope]]:
        """The events of a range, or those with this key; some lists may be empty."""

    @abstractmethod
    def attempts(self, group: str) -> dict[int, int]:
        """Which delivery of an event the next one is, or of a dead letter the last one was.

        Of those whose first delivery has failed.

        Raises:
            InvalidArgument: there is no such group.
        """

    @abstractmethod
    def consumers(self) -> list[ConsumerState]:
        """All consumers, by name."""

    @abstractmethod
    def groups(self) -> list[GroupReport]:
        """All groups, by name."""

    @abstractmethod
    def dead_letters(self, group: str | None) -> list[DeadLetter]:
        """The dead letters of a group, or of all."""


class _StoredLog(Readable):
    """A log in a directory, as it lies there."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    @cached_property
    def _reader(self) -> LogReader:
        return LogReader(self._directory)

    def close(self) -> None:
        if "_reader" in vars(self):
            self._reader.close()

    def bounds(self) -> tuple[int, int]:
        return self._reader.first_available, self._reader.last_seq_no + 1

    def stored_from(self, position: SeekPosition) -> Generator[EventEnvelope]:
        options = StreamOptions(follow=False, on_truncated="skip")
        feed = Feed(self._reader, "", position, options)
        try:
            while (events := feed.next_batch()) is not None:
                yield from events
        finally:
            feed.close()

    def batches(
        self, start: int, stop: int, key: str | None = None, decode: Decode = decode_any
    ) -> Iterator[list[EventEnvelope]]:
        wanted = None if key is None else filter_of_key(key)
        return read_range(self._reader, start, stop, wanted, decode=decode)

    def attempts(self, group: str) -> dict[int, int]:
        failures = [one.deliveries for one in read_states(self._directory) if one.name == group]
        if not failures:
            raise no_group(group, self._directory)
        dead = {one.seq_no: one.deliveries for one in self.dead_letters(group)}
        return dead | {seq_no: failed + 1 for seq_no, failed in failures[0].items()}

    def consumers(self) -> list[ConsumerState]:
        return self._reader.consumers()

    def groups(self) -> list[GroupReport]:
        return read_groups(self._directory)

    def dead_letters(self, group: str | None) -> list[DeadLetter]:
        return read_dead_letters(self._directory, group)


class _OpenedLog(Readable):
    """A log of another engine."""

    def __init__(self, log: blocking.EventLog) -> None:
        self._log = log

    def bounds(self) -> tuple[int, int]:
        status = self._log.status()
        stop = (status.last_seq_no or 0) + 1
        return status.first_seq_no or stop, stop

    def stored_from(self, position: SeekPosition) -> Generator[EventEnvelope]:
        stream = self._log.subscribe("tail", position, follow=False, on_truncated="skip")
        with stream as events:
            yield from events

    def batches(
        self, start: int, stop: int, key: str | None = None, decode: Decode = decode_any
    ) -> Iterator[list[EventEnvelope]]:
        return self._log.read(start, stop, key=key)._read(decode)

    def attempts(self, group: str) -> dict[int, int]:
        if group not in [one.name for one in self._log.groups()]:
            raise no_group(group, self._log.path)
        return {one.seq_no: one.deliveries for one in self._log.dead_letters(group)}

    def consumers(self) -> list[ConsumerState]:
        return self._log.consumers()

    def groups(self) -> list[GroupReport]:
        return self._log.groups()

    def dead_letters(self, group: str | None) -> list[DeadLetter]:
        names = [one.name for one in self._log.groups()] if group is None else [group]
        letters = (letter for name in names for letter in self._log.dead_letters(name))
        return sorted(letters, key=lambda letter: letter.failed_at)


@contextmanager
def readable(log: str) -> Iterator[Readable]:
    """The log, to be read.

    Raises:
        LogNotFound, NotALog: the directory holds none.
        NotSupported: no engine has that address.
    """
    if is_directory(check_there(log)):
        with closing(_StoredLog(log)) as stored:
            yield stored
        return
    with blocking.open(log) as opened:
        yield _OpenedLog(opened)
