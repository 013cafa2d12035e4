"""Events that a group hands out, read once by a handle though it looks at them several times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

from eventlog.errors import EventsTruncated
from eventlog.event.record_batch import SIX_COLUMNS
from eventlog.jetstream.reading import Events
from eventlog.remote.driver import Stored
from eventlog.remote.record import readable

KEPT_BYTES: Final = 8 << 20
KEPT_KEYS: Final = 65_536


class Records:
    """The events that one handle has read lately."""

    def __init__(self, events: Events, log_id: str, group: str) -> None:
        self._events = events
        self._log_id = log_id
        self._group = group
        self._kept: dict[int, Stored] = {}
        """The latest read is last."""
        self._kept_bytes = 0
        self._keys: dict[int, str | None] = {}

    async def get(self, seq_nos: Sequence[int]) -> tuple[dict[int, Stored], int]:
        """Those that are stored, by number; and the first event that is, 1 if all of them are.

        Raises:
            CorruptLog, LogDeleted, Unreachable.
        """
        found = {n: self._kept[n] for n in seq_nos if n in self._kept}
        first = 1
        for begin, end in _runs([n for n in seq_nos if n not in found]):
            following = begin
            while following <= end:
                try:
                    read = await self._events.read(following, end - following + 1)
                except EventsTruncated as truncated:
                    first = following = truncated.first_available or end + 1
                    continue
                for stored in read:
                    self._keep(stored)
                    found[stored.seq_no] = stored
                following = read[-1].seq_no + 1 if read else end + 1
        return found, first

    def _keep(self, stored: Stored) -> None:
        self._kept[stored.seq_no] = stored
        self._kept_bytes += len(stored.record)
        while self._kept_bytes > KEPT_BYTES:
            gone = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= len(gone.record)

    def known_key_of(self, seq_no: int) -> str | None:
        """The digest of the key of an event that was looked at before; `None` if it has none."""
        return self._keys.get(seq_no)

    def key_of(self, stored: Stored) -> str | None:
        """The digest of its key, if it has one."""
        if stored.seq_no not in self._keys:
            envelope = readable(stored, self._events.path)
            key = None if envelope is None else envelope.key
            while len(self._keys) >= KEPT_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[stored.seq_no] = None if key is None else _digest(key)
        return self._keys[stored.seq_no]

    def is_own_result(self, stored: Stored) -> bool:
        """Whether this group has written it, so that it is never handed to it."""
        if bytes(stored.record[:1]) != SIX_COLUMNS:
            return False
        envelope = readable(stored, self._events.path)
        cause = None if envelope is None else envelope.cause
        return cause is not None and (cause.log_id.hex, cause.group) == (self._log_id, self._group)


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=8).hexdigest()


def _runs(seq_nos: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow each other, together."""
    begin = end = 0
    for seq_no in seq_nos:
        if begin and seq_no == end + 1:
            end = seq_no
            continue
        if begin:
            yield begin, end
        begin = end = seq_no
    if begin:
        yield begin, end
