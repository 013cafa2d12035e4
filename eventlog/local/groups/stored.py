"""Groups and dead letters as they lie in a log's directory, read without its writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.event.cause import OneCause, packed_cause, unpacked_cause
from eventlog.event.envelope import (
    TIMESTAMP_BYTES,
    Columns,
    EventEnvelope,
    datetime_of,
    envelopes_of,
    new_id,
)
from eventlog.event.payload import new_packer, unpack
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, read_records, replaying, stamp_of
from eventlog.local.storage.members import MemberPages
from eventlog.local.storage.reader import LogReader

__all__ = [
    "DeadLetter",
    "GroupReport",
    "MemberPages",
    "pack_letter",
    "read_dead_letters",
    "read_groups",
    "read_states",
]

ERROR_BYTES_LEAST: Final = 500
"""So much of an error's text is kept, however little room a letter has."""
ROOM_BYTES: Final = 8
"""More than MessagePack needs beside a text."""


def pack_letter(
    *,
    event: Any,
    key: str | None,
    headers: dict[str, str] | None,
    error: str,
    traceback: str | None = None,
    exit_code: int | None = None,
    peak_rss_bytes: int | None = None,
    log_lines: tuple[str, ...] = (),
) -> bytes:
    """What a member or pool tells the writer of a dead letter; the writer never looks into it."""
    letter = {
        "event": event,
        "key": key,
        "headers": headers,
        "error": error,
        "traceback": traceback,
        "exit_code": exit_code,
        "peak_rss_bytes": peak_rss_bytes,
        "log_lines": list(log_lines),
    }
    return new_packer()(letter)


def fitting_letter(
    limit: int,
    envelope: EventEnvelope | None,
    *,
    error: str,
    traceback: str | None = None,
    log_lines: tuple[str, ...] = (),
    exit_code: int | None = None,
    peak_rss_bytes: int | None = None,
) -> bytes:
    """A letter of at most `limit` bytes; `envelope` is `None` if nobody can read the event.

    The copy of the event, which a retry runs when retention has deleted it, is left out last:
    first go the older log lines, then the beginning of the traceback and the end of the error.
    """
    letter: dict[str, Any] = {
        "error": error,
        "traceback": None,
        "exit_code": exit_code,
        "peak_rss_bytes": peak_rss_bytes,
        "log_lines": [],
    }
    pack = new_packer()
    copy = {} if envelope is None else _copy_of(envelope)
    if len(pack({**letter, **copy})) > limit:
        letter["error"] = _cut(error, ERROR_BYTES_LEAST)
    if copy and len(pack({**letter, **copy})) > limit:
        copy = {"key": copy["key"], "headers": copy["headers"]}
    if copy and len(pack({**letter, **copy})) > limit:
        copy = {}
    letter |= copy
    room = limit - len(pack(letter)) - ROOM_BYTES
    if traceback is not None and room > 0:
        letter["traceback"] = _cut_start(traceback, room)
        room -= len(letter["traceback"].encode())
    for line in reversed(log_lines):
        room -= len(line.encode()) + ROOM_BYTES
        if room < 0:
            break
        letter["log_lines"].insert(0, line)
    return pack(letter)


def _copy_of(envelope: EventEnvelope) -> dict[str, Any]:
    copy = {
        "event": envelope.event,
        "key": envelope.key,
        "headers": envelope.headers,
        "id": envelope.id.bytes,
        "timestamp_ns": envelope.timestamp_ns,
    }
    if envelope.cause is not None:
        copy["cause"] = packed_cause(envelope.cause)
    return copy


def _cut(text: str, limit: int) -> str:
    """The beginning of a text, in so many bytes."""
    return text.encode()[:limit].decode(errors="ignore")


def _cut_start(text: str, limit: int) -> str:
    """The end of a text, in so many bytes."""
    return text.encode()[-limit:].decode(errors="ignore")


def envelope_of_letter(letter: bytes, seq_no: int) -> EventEnvelope | None:
    """The copy of the event that a letter holds; `None` if it holds none.

    Letters of earlier versions hold nil for no copy, and neither id nor time.
    """
    try:
        fields: dict[str, Any] = unpack(letter)
        event, id_bytes = fields.get("event"), fields.get("id")
        if event is None and id_bytes is None:
            return None
        timestamp_ns = fields.get("timestamp_ns") or 0
        packed = fields.get("cause")
        cause = None if packed is None else OneCause(unpacked_cause(packed))
        columns = Columns(
            seq_no,
            id_bytes or new_id(timestamp_ns),
            timestamp_ns.to_bytes(TIMESTAMP_BYTES, "little"),
            [fields.get("key")],
            [fields.get("headers")],
            causes=cause,
        )
    except (ValueError, TypeError, AttributeError, OverflowError, msgpack.UnpackException):
        return None
    (envelope,) = envelopes_of([event], columns)
    return envelope


class StoredLetters:
    """A group's letters, also while they are retried, read again only for what was not there."""

    def __init__(self, directory: str, group: str) -> None:
        self._directory = directory
        self._group = group
        self._known: dict[int, bytes] = {}
        self._read_at: tuple[int, ...] = ()

    def find(self, seq_no: int) -> bytes | None:
        """The letter of an event; `None` if it has none.

        Raises:
            CorruptLog: the letters cannot be read.
        """
        if seq_no not in self._known:
            stamp = stamp_of(self._directory, DEAD_NAME)
            if stamp != self._read_at:
                self._known = {
                    number: fields[3]
                    for letters in _stored_letters(self._directory)
                    for (name, number), fields in letters.items()
                    if name == self._group
                }
                self._read_at = stamp
        return self._known.get(seq_no)


def without_copy(directory: str, group: str, seq_nos: list[int]) -> list[int]:
    """Those of the dead letters that hold no copy of their event."""
    if not seq_nos:
        return []
    listed, _ = _stored_letters(directory)
    found = ((n, listed.get((group, n))) for n in seq_nos)
    return [n for n, fields in found if fields and envelope_of_letter(fields[3], n) is None]


def read_dead_letters(
    directory: str | os.PathLike[str], group: str | None = None
) -> list[DeadLetter]:
    """The dead letters of a log, or of one of its groups, in the order in which they died.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    return list(_letters(os.fspath(directory), group))


def _letters(directory: str, group: str | None) -> Iterator[DeadLetter]:
    listed, _ = _stored_letters(directory)
    with replaying(directory, DEAD_NAME):
        for (name, seq_no), (_, deliveries, failed_ns, letter, *_) in listed.items():
            if group is None or name == group:
                yield _letter(name, seq_no, deliveries, failed_ns, letter)


Letters = dict[tuple[str, int], list[Any]]


def _stored_letters(directory: str) -> tuple[Letters, Letters]:
    """The records of dead letters, and of those that are being retried (see `GroupStore`)."""
    listed: Letters = {}
    retried: Letters = {}
    with replaying(directory, DEAD_NAME):
        for kind, name, *fields in read_records(directory, DEAD_NAME):
            if kind == "dead":
                for letters in (listed, retried):
                    letters.pop((name, fields[0]), None)
                listed[name, fields[0]] = fields
                continue
            for first, last in fields[0]:
                for letters in (listed, retried):
                    for key in [k for k in letters if k[0] == name and first <= k[1] <= last]:
                        found = letters.pop(key)
                        if kind == "retry":
                            retried[key] = found
                        elif kind == "kept":
                            listed[key] = found
    return listed, retried


def _letter(name: str, seq_no: int, deliveries: int, failed_ns: int, letter: bytes) -> DeadLetter:
    try:
        fields: dict[str, Any] = unpack(letter)
    except (ValueError, msgpack.UnpackException):
        fields = {"error": "its letter cannot be read"}
    return DeadLetter(
        event=fields.get("event"),
        key=fields.get("key"),
        seq_no=seq_no,
        error=str(fields.get("error")),
        traceback=fields.get("traceback"),
        deliveries=deliveries,
        group=name,
        headers=fields.get("headers"),
        exit_code=fields.get("exit_code"),
        peak_rss_bytes=fields.get("peak_rss_bytes"),
        log_lines=tuple(fields.get("log_lines") or ()),
        failed_at=datetime_of(failed_ns),
    )


def read_groups(directory: str | os.PathLike[str]) -> list[GroupReport]:
    """The groups of a log, by name.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    directory = os.fspath(directory)
    log = LogReader(directory)
    try:
        last_seq_no, first = log.last_seq_no, log.first_available
    finally:
        log.close()
    dead: dict[str, int] = {}
    for letter in _letters(directory, None):
        dead[letter.group] = dead.get(letter.group, 0) + 1
    with replaying(directory, GROUPS_NAME):
        return [
            _report(state, last_seq_no, first, dead.get(state.name, 0))
            for state in sorted(read_states(directory), key=lambda state: state.name)
        ]


def read_states(directory: str) -> list[GroupState]:
    """The groups of a log as its journal has them; they know no keys.

    Raises:
        LogNotFound, CorruptLog: the log cannot be read.
    """
    states: dict[str, GroupState] = {}
    with replaying(directory, GROUPS_NAME):
        for kind, name, *fields in read_records(directory, GROUPS_NAME):
            if kind == "forget":
                states.pop(name, None)
            else:
                states.setdefault(name, GroupState(name, _no_hashes)).apply(kind, *fields)
    return list(states.values())


def _no_hashes(first: int, last: int) -> list[int]:
    """Nothing is handed out here, so no key matters."""
    return [0] * (last - first + 1)


def _report(state: GroupState, last_seq_no: int, first: int, dead_letters: int) -> GroupReport:
    behind = max(state.position, first - 1)
    above = sum(to - since + 1 for since, to in state.done if to > behind)
    return GroupReport(
        name=state.name,
        ordering=state.ordering or None,
        max_deliveries=state.max_deliveries,
        position=state.position,
        lag=max(last_seq_no - behind - above, 0) + state.again.count,
        in_flight=state.in_flight,
        members=len(state.members),
        redeliveries=len(state.deliveries) - len(state.condemned),
        dead_letters=dead_letters,
    )
