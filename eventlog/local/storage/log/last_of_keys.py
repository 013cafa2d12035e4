"""`LastOfKeys`: the number of the last stored event of each key, as the writer knows it.

Only the writer of a log that is appended to with `expect=` has one, from the first such append on.
What is asked for is looked for from the newest batch backwards::

    heads       the keys that were asked for lately, each by its hash
    collected   the active segment, and full ones whose index is not in its file yet
    files       the indexes by key of all other segments

All but `heads` know hashes alone. A batch that they name is read for its keys, so that two keys of
one hash are told apart; the next look-up of the key finds the head.

What is damaged may be the key's last event. So a number is known only if all events after it are
whole: a writer that took a damaged event for one that is not there would store what nobody may
(twice the same withdrawal), and say that all is well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from eventlog.errors import CorruptLog
from eventlog.event.packed_columns import keys_in
from eventlog.event.record_batch import PackedBatch, areas_bytes, key_hash
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.files import Files, os_errors
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    HEADER_BYTES,
    IndexEntry,
    batch_fault,
    segment_name,
    unpack_batch_header,
)
from eventlog.local.storage.formats.refusals import unknown_last, unreadable_key
from eventlog.local.storage.key_index import Extent, look_up
from eventlog.local.storage.make_key_index import Collected, collect, collect_all, save
from eventlog.local.storage.segment import SegmentReader, SegmentWriter

HEADS_MAX: Final = 32_768
"""More than one append may name; some MiB."""
LOOK_UPS_INLINE: Final = 256
"""Look-ups in index files that take less than about 10 ms."""


class NotIndexed(Exception):
    """A segment has to be looked through first: `LastOfKeys.index` does."""

    def __init__(self, base_seq_no: int) -> None:
        super().__init__(base_seq_no)
        self.base_seq_no = base_seq_no


class LastOfKeys:
    """The last event of each key of one log."""

    def __init__(
        self, control: ControlPage, full: list[int], active: SegmentWriter | None, files: Files
    ) -> None:
        """Begin with the numbers of the segments that are full, and the active one."""
        self._control = control
        self._directory = control.directory
        self._files = files
        self._bases = full
        """All segments, the active one last."""
        self._collected: dict[int, Collected] = {}
        self._before: Collected | None = None
        """What stood in the active segment, before `_position`, at the beginning."""
        self._position = FIRST_BATCH
        self._is_looked_through = True
        self._heads: dict[int, tuple[str, int]] = {}
        self.on_full: Callable[[], None] = lambda: None
        """Called when a full segment has its index in memory: `save` puts it into a file."""
        if active is not None:
            self.roll(active.base_seq_no)
            self._position = active.position
            if active.position > FIRST_BATCH:
                base = active.base_seq_no
                self._before = Collected(base)
                self._collected[base] = Collected(base, control.high_water + 1)
                self._is_looked_through = False

    # --- what happens to the log ---------------------------------------------------------------

    def note(self, batch: PackedBatch, place: IndexEntry, header: bytes) -> None:
        """A batch was stored, with that header, at that place of the active segment."""
        collected = self._collected[self._bases[-1]]
        crc = int.from_bytes(header[:4], "little")
        hashes = collected.note(batch, place.base_seq_no, place.position, crc, batch.payload)
        for one in hashes:
            head = self._heads.pop(one, None)
            if head is not None and batch.count == 1:  # else who asks for the key looks
                self._go_on(batch, place.base_seq_no, one, head[0])

    def _go_on(self, batch: PackedBatch, seq_no: int, hashed: int, key: str) -> None:
        """An event of a key that was asked for was stored, or one of another key of its hash."""
        if _keys_of(batch, seq_no) == [key]:
            self._heads[hashed] = key, seq_no

    def roll(self, base_seq_no: int) -> None:
        """A new segment is the active one."""
        if self._before is not None:
            # Of which only a part was collected: its index is made when it is needed.
            del self._collected[self._before.base_seq_no]
            self._before, self._is_looked_through = None, True
        if self._bases and self._bases[-1] in self._collected:
            self.on_full()
        self._bases.append(base_seq_no)
        self._collected[base_seq_no] = Collected(base_seq_no)

    def retire(self, base_seq_no: int) -> None:
        """The oldest segment was deleted."""
        self._bases.remove(base_seq_no)
        self._collected.pop(base_seq_no, None)

    def learn(self, batch: PackedBatch, base_seq_no: int, expected: Mapping[str, int]) -> None:
        """A batch of several events, which expected these numbers, was stored."""
        keys = enumerate(_keys_of(batch, base_seq_no), base_seq_no)
        now = {key: number for number, key in keys if key is not None and key in expected}
        for key, number in now.items():
            self._remember(key, number)

    # --- looking up ----------------------------------------------------------------------------

    def is_quick(self, keys: Mapping[str, int]) -> bool:
        """Whether looking all of them up holds nobody up."""
        most = LOOK_UPS_INLINE // max(len(self._bases), 1)
        if len(keys) <= most:
            return True
        return sum(key_hash(key) not in self._heads for key in keys) <= most

    def find(self, key: str) -> int:
        """The number of the last event of the key that is stored; 0 without one.

        Raises:
            NotIndexed: a segment has to be indexed before.
            CorruptLog, StorageFailed: a batch that may hold it cannot be read.
        """
        known = self._heads.get(key_hash(key))
        if known is None or known[0] != key:
            known = key, self._search(key)
            self._remember(*known)
        return known[1] if known[1] >= self._control.first_available else 0

    def _remember(self, key: str, number: int) -> None:
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        self._heads[key_hash(key)] = key, number

    def _search(self, key: str) -> int:
        """The number of the key's last event, from the newest batch backwards; 0 without one."""
        hashed, end = key_hash(key), self._control.high_water + 1
        for base in reversed(self._bases):
            for extent, first, positions in self._parts(base, hashed):
                if extent.end_seq_no < end:
                    raise unknown_last(self._directory, key, extent.end_seq_no, end - 1)
                found = (self._last_in(base, position, key) for position in positions)
                number = next(filter(None, found), 0)
                if number < extent.whole_from and not extent.is_whole:
                    raise unknown_last(self._directory, key, first, extent.whole_from - 1)
                if number:
                    return number
                end = first
        if end > self._control.first_available:
            raise unknown_last(self._directory, key, self._control.first_available, end - 1)
        return 0

    def _parts(self, base: int, hashed: int) -> Iterator[tuple[Extent, int, Iterable[int]]]:
        """The parts of a segment, and where in them batches with that hash are; newest first.

        Of each part: how far it goes, its first event, and the offsets.
        """
        if base not in self._collected:
            found = look_up(self._directory, base, [hashed], self._files)
            if found is None:
                raise NotIndexed(base)
            yield found.extent, base, reversed(found.positions)
            return
        parts = [self._collected[base]]
        if self._before is not None and base == self._bases[-1]:
            if not self._is_looked_through:
                raise NotIndexed(base)
            parts.append(self._before)
        for part in parts:
            yield part.extent, part.first_seq_no, part.runs.newest_first(hashed)

    def _last_in(self, base: int, position: int, key: str) -> int:
        """The number of the last event of the key in that batch; 0 without one."""
        with os_errors(self._directory, "reading a stored key"):
            path = os.path.join(self._directory, segment_name(base))
            descriptor = self._files.open_read(path)
            try:
                packed = self._files.read(descriptor, HEADER_BYTES, position)
                length = unpack_batch_header(memoryview(packed), 0).length
                packed += self._files.read(
                    descriptor, length - HEADER_BYTES, position + HEADER_BYTES
                )
            finally:
                self._files.close(descriptor)
        view = memoryview(packed)
        header = unpack_batch_header(view, 0)
        fault = batch_fault(view, 0, header)
        if fault is not None:
            raise unreadable_key(self._directory, base, position, fault)
        try:
            keys = keys_in(view[header.body_offset :], header.count, header.base_seq_no)
        except ValueError:
            fault = "a batch whose keys cannot be decoded"
            raise unreadable_key(self._directory, base, position, fault) from None
        numbers = [number for number, one in enumerate(keys, header.base_seq_no) if one == key]
        return numbers[-1] if numbers else 0

    # --- indexing ------------------------------------------------------------------------------

    def index(self, base_seq_no: int) -> Iterator[None]:
        """Look through a segment, step by step: the active one, or a full one without an index.

        Raises (from the iterator):
            CorruptLog, StorageFailed: it cannot be read.
        """
        if base_seq_no in self._collected:
            yield from self._look_through(base_seq_no)
        elif base_seq_no in self._bases:
            collected = Collected(base_seq_no)
            with suppress(FileNotFoundError):  # lost, or deleted meanwhile: nothing of it is stored
                yield from collect_all(self._directory, collected, self._files)
            if base_seq_no in self._bases:
                self._collected[base_seq_no] = collected
            yield from self.save()

    def _look_through(self, base_seq_no: int) -> Iterator[None]:
        before = self._before
        if before is None:
            return
        segment = SegmentReader(self._directory, base_seq_no, self._files)
        try:
            yield from collect(segment, before, self._position)
        finally:
            segment.close()
        if before is self._before:  # else the segment is full by now
            self._is_looked_through = True

    def save(self) -> Iterator[None]:
        """Put the indexes of full segments into their files; one without room for it stays here."""
        for base, collected in list(self._collected.items()):
            is_full = base != self._bases[-1]
            # Kept if it could not be saved: the file there may be a damaged one, which would be
            # made anew, and not saved, again and again.
            if is_full and (yield from save(self._directory, collected, self._files)):
                self._collected.pop(base, None)


def _keys_of(batch: PackedBatch, base_seq_no: int) -> list[str | None]:
    """The keys of a batch, as far as they can be read: whoever looks for them there says so."""
    body = batch.payload[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    try:
        return keys_in(body, batch.count, base_seq_no)
    except (ValueError, CorruptLog):
        return []
