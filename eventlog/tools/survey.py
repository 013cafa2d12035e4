"""What can be said of a log's files without reading every event: for `verify`, `repair`, `doctor`.

A fault names what is wrong in words; whether it is a problem (something is lost, or not served) or
a note (the writer's next start mends it by itself) is a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

import msgpack

from eventlog.checksum import crc32c
from eventlog.config import LogOptions
from eventlog.errors import CorruptLog, EventLogError, LogNotFound, UnknownFormat
from eventlog.local.groups.records import Snapshot, group_record
from eventlog.local.storage import control as page
from eventlog.local.storage.files import FILES, Files, os_errors, read_file, used_bytes
from eventlog.local.storage.formats import offset_format
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    INDEX_ENTRY,
    base_of_name,
    index_name,
    unpack_index_entry,
)
from eventlog.local.storage.formats.recovery import Damage, whole_batches
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME, STATES_NAME, parse, whole_record
from eventlog.local.storage.key_index import index_fault
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader
from eventlog.local.storage.starting.missing import ahead, ahead_remedy, lost_state, missing_files

JOURNALS: Final = (GROUPS_NAME, DEAD_NAME, STATES_NAME)
LOST: Final = {
    GROUPS_NAME: "what groups did, in {} records or more, so events are handled again",
    STATES_NAME: "states of consumers, in {} records or more: they go on from earlier ones",
}
"""What is lost with records after the first damage, of which there are so many."""
EVERYTHING: Final = 2**63


class Fault(NamedTuple):
    """One thing that is wrong."""

    text: str
    is_problem: bool
    kind: str
    """tail, marks, index, keys, positions, ahead, journal or missing."""
    do: str | None = None
    """What to do about it, where a repair does nothing; `{log}` stands for the path."""


class Tail(NamedTuple):
    """Where a log ends, by what its segments hold."""

    last_seq_no: int
    is_torn: bool
    reason: str
    holes: tuple[Damage, ...] = ()
    """Damage in the last segment, before events that are whole."""

    def holes_up_to(self, seq_no: int) -> list[Damage]:
        """Those that are no batch which a writer was just storing.

        `seq_no` is a high-water mark from before the segment was read.
        """
        return [hole for hole in self.holes if hole.last_seq_no and hole.last_seq_no <= seq_no]

    def holes_after(self, seq_no: int) -> list[Damage]:
        """The others."""
        return [hole for hole in self.holes if hole not in self.holes_up_to(seq_no)]


def survey(log: LogReader) -> list[Fault]:
    """Everything that is wrong with a log but for its events."""
    is_served = log.control.running_writer is not None
    indexes = [*_index_faults(log), *_key_index_faults(log)]
    journals = [*_journal_faults(log)]
    told = {fault.text for fault in journals}
    positions = [one for one in _position_faults(log) if one.text not in told]  # by `states`
    faults = [*indexes, *positions, *journals, *_missing(log)]
    if is_served:  # which may be in the middle of a batch or record
        return [fault for fault in faults if fault.is_problem or fault.kind != "journal"]
    return [*_tail_faults(log), *faults]


def _missing(log: LogReader) -> Iterator[Fault]:
    """Files that are not there although others say that they were."""
    with os_errors(log.directory, "looking into the directory"):
        names = log.files.names(log.directory)
    for text in missing_files(names, log.control.epoch):
        yield Fault(text, True, "missing")


# --- the tail -----------------------------------------------------------------------------------


def find_tail(directory: str, bases: list[int], files: Files = FILES) -> Tail:
    """The last event that is stored whole, whatever the high-water mark says."""
    if not bases:
        return Tail(0, False, "there is no segment")
    base = bases[-1]
    try:
        segment = SegmentReader(directory, base, files)
    except (CorruptLog, FileNotFoundError):  # reported with its events
        return Tail(base - 1, False, "the last segment cannot be read")
    try:
        scan = segment.scan(EVERYTHING)
    finally:
        segment.close()
    # The last damage is always the open end, here: what lies behind is called trusted.
    *holes, end = scan.damages
    return Tail(scan.next_seq_no - 1, scan.is_torn, end.reason, tuple(holes))


def _tail_faults(log: LogReader) -> Iterator[Fault]:
    """What a killed writer left."""
    tail = find_tail(log.directory, log.segment_bases(), log.files)
    last, first = log.last_seq_no, log.first_available
    if tail.is_torn:
        text = f"a torn tail after event {tail.last_seq_no} ({tail.reason}); it is to be cut"
        yield Fault(text, False, "tail")
    if tail.last_seq_no > last:
        text = f"{tail.last_seq_no - last} event(s) from {last + 1} on are whole and not published"
        yield Fault(text, False, "marks")
    bases = log.segment_bases()
    if bases and bases[0] < first <= tail.last_seq_no and first not in bases:
        text = f"the control page says that event {first} is the first one, where no segment begins"
        yield Fault(text, True, "marks")
    elif first > max(last, tail.last_seq_no) + 1:
        text = f"the control page says that event {first} is the first one, and {last} the last"
        yield Fault(text, True, "marks")


# --- indexes ------------------------------------------------------------------------------------


def wrong_indexes(log: LogReader) -> dict[int, str]:
    """What is wrong with the indexes, by the number of their segment."""
    found: dict[int, str] = {}
    for base in log.segment_bases():
        if not os.path.exists(os.path.join(log.directory, index_name(base))):
            found[base] = f"segment {base} has no index"
            continue
        try:
            segment = SegmentReader(log.directory, base, log.files)
        except (OSError, CorruptLog):
            continue  # reported with its events
        try:
            fault = _index_fault(log, segment)
        finally:
            segment.close()
        if fault is not None:
            found[base] = f"the index of segment {base} {fault}"
    return found


def _index_fault(log: LogReader, segment: SegmentReader) -> str | None:
    entries = segment.entries()
    wrong = [entry for entry in entries if not segment.leads_to_batch(entry)]
    if wrong:
        return f"has {len(wrong)} wrong entries"
    path = os.path.join(log.directory, index_name(segment.base_seq_no))
    with os_errors(log.directory, "reading an index"), open(path, "rb") as file:
        packed = file.read()
    place = len(entries) * INDEX_ENTRY.size
    if packed[place:].strip(b"\0"):
        # A writer may be in the middle of an entry, which then stands at the very end.
        later = range(
            place + INDEX_ENTRY.size, len(packed) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size
        )
        if any(unpack_index_entry(packed, offset) for offset in later) or not entries:
            return "is damaged"
    if entries or log.last_seq_no < segment.base_seq_no:
        return None
    view = segment.view
    first = next(whole_batches(view, FIRST_BATCH, segment.base_seq_no, len(view)), None)
    return None if first is None else "is empty"


def _index_faults(log: LogReader) -> Iterator[Fault]:
    """An index that is missing or wrong only makes a seek longer: a note."""
    for text in wrong_indexes(log).values():
        yield Fault(text, False, "index")


def wrong_key_indexes(log: LogReader) -> dict[int, str]:
    """What is wrong with the indexes by key that are there, by the number of their segment."""
    found: dict[int, str] = {}
    for base in log.segment_bases():
        with suppress(OSError):  # whoever reads the events says so
            fault = index_fault(log.directory, base, log.files)
            if fault is not None:
                found[base] = f"the index by key of segment {base} {fault}"
    return found


def _key_index_faults(log: LogReader) -> Iterator[Fault]:
    """Without it, who asks for a key walks the segment, or makes it again: a note."""
    for text in wrong_key_indexes(log).values():
        yield Fault(text, False, "keys")


def segments_in(directory: str, files: Files) -> list[int]:
    """The numbers of the segments, by their names; none if there is no such directory."""
    try:
        names = files.names(directory)
    except OSError:
        return []
    return sorted(base for base in map(base_of_name, names) if base is not None)


# --- positions ----------------------------------------------------------------------------------


def damaged_rows(data: bytes) -> dict[int, str]:
    """The rows of an offset table that are no consumer's any more: what is left of each."""
    found: dict[int, str] = {}
    for slot in range((len(data) - offset_format.HEADER.size) // offset_format.SLOT.size):
        fields = offset_format.SLOT.to_dict(
            data, offset_format.HEADER.size + slot * offset_format.SLOT.size
        )
        name = fields["name"][: fields["name_bytes"]]
        is_whole = crc32c(name) == fields["name_crc"] and name
        if fields["state"] and not (is_whole and fields["state"] == 1):
            shown = fields["name"].rstrip(b"\0")[:60].decode(errors="replace")
            found[slot] = f"the consumer {shown!r}, at event {fields['position']}"
    return found


def _position_faults(log: LogReader) -> Iterator[Fault]:
    """A position ahead of the log is allowed, and worth a note."""
    try:
        states = log.consumers()
    except EventLogError as error:
        yield Fault(str(error), True, "positions")
        return
    for state in states:
        if (state.last_acked or 0) > log.last_seq_no:
            text = ahead(state.name, state.last_acked or 0, log.last_seq_no)
            do = ahead_remedy("{log}", state.name, log.last_seq_no)
            yield Fault(text, False, "ahead", do)
    with suppress(LogNotFound), closing(OffsetTable(log.directory, files=log.files)) as table:
        for one in table.without_record():
            yield Fault(lost_state(one.name, one.position), True, "positions")
    # A writer that makes a row just now is seen at work once, and not twice.
    rows, again = (
        damaged_rows(read_file(log.directory, offset_format.FILE_NAME, log.files) or b"")
        for _ in range(2)
    )
    for what in [rows[slot] for slot in rows if slot in again]:
        yield Fault(f"a row of the offset table is damaged: {what}", True, "positions")


# --- journals -----------------------------------------------------------------------------------


def _journal_faults(log: LogReader) -> Iterator[Fault]:
    for name in JOURNALS:
        data = read_file(log.directory, name, log.files)
        if data is None:
            continue
        try:
            records, end = parse(data, log.directory, name)
        except (CorruptLog, UnknownFormat) as error:
            yield Fault(str(error), True, "journal")
            continue
        lost = later_records(data, end)
        if lost:
            text = f"the file {name!r} is damaged after {len(records)} records; {len(lost)} follow"
            yield Fault(text, True, "journal")
        elif data[end:].strip(b"\0"):
            yield Fault(f"the file {name!r} ends in a torn record", False, "journal")


def later_records(data: bytes, position: int) -> list[list[Any]]:
    """Whole records after the place where a journal is damaged, wherever they begin."""
    found: list[list[Any]] = []
    used = used_bytes(data)  # a file may have room for much more, in which nothing begins
    while position < used:
        record = whole_record(data, position)
        if record is None:
            position += 1
        else:
            found.append(record[0])
            position = record[1]
    return found


def lease_ids(record: list[Any]) -> list[int]:
    """The numbers of leases that a record of the groups' journal names."""
    try:
        found = group_record(record)
    except ValueError:
        return []
    if isinstance(found, Snapshot):
        recent = [lease_id for member in found.members for lease_id in member.recent]
        return recent + [lease.lease_id for lease in found.leases]
    lease_id: int | None = getattr(found, "lease_id", None)
    return [] if lease_id is None else [lease_id]


# --- the control page -----------------------------------------------------------------------------


def options_in(old: bytes, fields: dict[str, Any]) -> LogOptions | None:
    """The options of a control page that may be damaged; `None` if they are."""
    end = page.OPTIONS_OFFSET + fields["options_bytes"]
    packed = old[page.OPTIONS_OFFSET : end]
    if not packed or end > page.PAGE_BYTES or crc32c(packed) != fields["options_crc"]:
        return None
    try:
        return LogOptions.from_dict(msgpack.unpackb(packed))
    except (ValueError, KeyError, TypeError, EventLogError):
        return None
