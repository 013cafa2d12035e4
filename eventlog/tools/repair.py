"""`eventlog verify --repair`: mend what can be derived, keep what was there, say what is lost.

The caller keeps writers away. The steps, each of which finds what the one before it has mended:

====================  =========================================================================
what is damaged       then
====================  =========================================================================
control page          made again: what is readable stays, the rest comes from the segments
segment header        made again from the file's name and the first batch that is whole
journals              headers made again; what follows a damaged record is kept aside
offset table          header made again; rows that are no consumer's any more are freed
indexes               made again from the batches; those by key are removed
the tail              cut after the last whole batch, as the writer's next start would
====================  =========================================================================

Nothing is lost by it: all changes go through `KeepingFiles`. Damage in the middle of the events
cannot be mended: it is reported by its range and stays what it is, so that no reader overlooks it.
Unlike a start after a loss of power, it cuts no whole events but those behind an unpublished hole.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, field

from eventlog.config import MAX_EVENT_BYTES_DEFAULT, LogOptions
from eventlog.errors import CorruptLog, LogNotFound, NotALog, UnknownFormat
from eventlog.local.storage import control as page
from eventlog.local.storage import offsets
from eventlog.local.storage.control import CONTROL, EPOCH_MAX, ControlPage
from eventlog.local.storage.files import os_errors, read_file
from eventlog.local.storage.formats import offset_format
from eventlog.local.storage.formats.format import (
    FIRST_BATCH,
    OTHER_VERSION,
    SEGMENT_HEADER,
    BatchHeader,
    index_name,
    key_index_name,
    pack_segment_header,
    segment_header_fault,
    segment_name,
)
from eventlog.local.storage.formats.recovery import find_batch_after
from eventlog.local.storage.identity import boot_id
from eventlog.local.storage.journal import (
    DEAD_NAME,
    GROUPS_NAME,
    STATES_NAME,
    Journal,
    framed,
    journal_header,
    parse,
    read_records,
)
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader
from eventlog.local.storage.sharing import keep_shared
from eventlog.local.storage.starting.missing import lost_state
from eventlog.local.storage.starting.start import open_log
from eventlog.tools.keep import KeepingFiles
from eventlog.tools.survey import (
    EVERYTHING,
    JOURNALS,
    LOST,
    Tail,
    damaged_rows,
    find_tail,
    later_records,
    lease_ids,
    options_in,
    segments_in,
    survey,
    wrong_indexes,
    wrong_key_indexes,
)


@dataclass(slots=True)
class Repair:
    """What a repair did."""

    done: list[str] = field(default_factory=list)
    """What was mended."""
    lost: list[str] = field(default_factory=list)
    """What could not be."""
    kept: list[str] = field(default_factory=list)
    """The names of the copies of what was changed."""


def repair_log(directory: str, files: KeepingFiles | None = None) -> Repair:
    """Mend the log; no writer may run meanwhile.

    Raises:
        NotALog, LogNotFound: there is nothing to mend a log from.
        UnknownFormat: the log is of another version, which is no damage.
        LogFull: there is no room for the copies; nothing is lost.
    """
    files = KeepingFiles() if files is None else files
    work = _Work(directory, files)
    try:
        work.run()
    finally:
        files.drop_unneeded()
        work.report.kept = sorted(map(os.path.basename, files.copies.values()))
        keep_shared(directory)
    return work.report


class _Work:
    def __init__(self, directory: str, files: KeepingFiles) -> None:
        self._directory = directory
        self._files = files
        self._bases = segments_in(directory, files)
        self.report = Repair()

    def run(self) -> None:
        """All steps in their order."""
        is_new = self._mend_control()
        for base in self._bases:
            self._mend_header(base)
        for name in JOURNALS:
            self._mend_journal(name)
        self._mend_offsets()  # a position may stand in the journal of states
        self._tell_lost_states()
        self._mend_marks(is_new=is_new)
        self._recover()

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _replace(self, name: str, content: bytes) -> None:
        """Put a file in the place of another one, in one step."""
        path, files = self._path(name), self._files
        with os_errors(self._directory, f"making its file {name} again"):
            descriptor = files.create(path + ".new")
            try:
                files.write(descriptor, [content], 0)
                files.sync(descriptor)
            finally:
                files.close(descriptor)
            files.rename(path + ".new", path)
            files.sync_directory(self._directory)

    # --- the control page ------------------------------------------------------------------------

    def _mend_control(self) -> bool:
        """Make the page readable; whether its marks are still to be found."""
        try:
            ControlPage(self._directory, files=self._files).close()
        except (CorruptLog, NotALog, LogNotFound):
            old = read_file(self._directory, page.FILE_NAME, self._files) or b""
            if not self._bases:
                raise
            return self._make_control(old)
        return False

    def _make_control(self, old: bytes) -> bool:
        """A page of what the old one says as far as that can be believed; whether that was all."""
        is_long = len(old) == page.PAGE_BYTES
        old = old[: page.PAGE_BYTES].ljust(page.PAGE_BYTES, b"\0")
        fields = CONTROL.to_dict(old)
        options = options_in(old, fields)
        if options is None:
            options = self._default_options()
            self.report.lost.append(
                "the options of the log are unknown: it has durability='disk', no retention and"
                f" segment_bytes={options.segment_bytes} now"
            )
        log_id = fields["log_id"] if any(fields["log_id"]) else os.urandom(16)
        fresh = bytearray(page.new_control_page(options, log_id, fields["created_ns"]))
        marks = slice(CONTROL.offset("high_water"), CONTROL.size)
        if is_long:
            fresh[marks] = old[marks]
        self._replace(page.FILE_NAME, bytes(fresh))
        self.report.done.append("made the control page again")
        return not is_long

    def _default_options(self) -> LogOptions:
        """Those that can be seen in the segments, and defaults."""
        sizes = []
        for base in self._bases:
            header = self._header_of(base)
            if segment_header_fault(header, base) is None:
                sizes.append(SEGMENT_HEADER.to_dict(header)["segment_bytes"])
            else:
                sizes.append(os.path.getsize(self._path(segment_name(base))))
        size = max(sizes)
        return LogOptions(
            segment_bytes=size, max_event_bytes=min(MAX_EVENT_BYTES_DEFAULT, size // 4)
        )

    def _mend_marks(self, *, is_new: bool) -> None:
        """Marks that contradict the segments; the high-water mark is left to `_recover`."""
        if not self._bases:
            return
        tail = find_tail(self._directory, self._bases, self._files)
        control = ControlPage(self._directory, writable=True, files=self._files)
        try:
            if is_new:
                control.high_water = control.synced = tail.last_seq_no
                control.first_available, control.boot_id = self._bases[0], boot_id()
                control.note_due(self._bases[0], tail.last_seq_no)
                self.report.done.append(f"found the last event, {tail.last_seq_no}")
            elif self._is_first_wrong(control, tail):
                self._files.keep(self._path(page.FILE_NAME))
                wrong, control.first_available = control.first_available, self._bases[0]
                self.report.done.append(f"event {self._bases[0]} is the first one, not {wrong}")
            if control.first_available < self._bases[0]:
                last = self._bases[0] - 1
                text = f"the events {max(control.first_available, 1)} to {last}: their segments"
                self.report.lost.append(f"{text} are missing")
            known = self._last_epoch()
            if not known <= control.epoch < EPOCH_MAX:
                control.epoch = 1 + known  # the numbers of leases begin with it: none comes twice
            if control.boot_id != boot_id():
                # A start of the writer would cut at what is damaged after the last sync: here all
                # that is whole stays; but not what follows a hole in what was never published,
                # which may be of somebody's payload.
                ends = [one.first_seq_no - 1 for one in tail.holes_after(control.high_water)]
                control.synced = max(control.synced, min([tail.last_seq_no, *ends]))
        finally:
            control.close()

    def _last_epoch(self) -> int:
        """Epoch of the last writer that left a trace, in a segment, a batch or a lease's number."""
        epochs = [0, *map(self._epoch_of, self._bases)]
        with suppress(CorruptLog, FileNotFoundError):
            segment = SegmentReader(self._directory, self._bases[-1], self._files)
            try:
                segment.scan(EVERYTHING, lambda batch, _: epochs.append(batch.epoch))
            finally:
                segment.close()
        with suppress(CorruptLog):
            for record in read_records(self._directory, GROUPS_NAME, self._files):
                epochs += [lease_id >> 32 for lease_id in lease_ids(record)]
        return max(epoch for epoch in epochs if epoch < EPOCH_MAX - 1)

    def _epoch_of(self, base: int) -> int:
        header = self._header_of(base)
        is_whole = segment_header_fault(header, base) is None
        return int(SEGMENT_HEADER.to_dict(header)["epoch"]) if is_whole else 0

    def _is_first_wrong(self, control: ControlPage, tail: Tail) -> bool:
        known = {*self._bases, tail.last_seq_no + 1, control.high_water + 1}
        return control.first_available > self._bases[0] and control.first_available not in known

    # --- segments --------------------------------------------------------------------------------

    def _header_of(self, base: int) -> bytes:
        with os_errors(self._directory, "reading a segment"):
            descriptor = self._files.open_read(self._path(segment_name(base)))
            try:
                return self._files.read(descriptor, FIRST_BATCH, 0)
            finally:
                self._files.close(descriptor)

    def _mend_header(self, base: int) -> None:
        header = self._header_of(base)
        fault = segment_header_fault(header, base)
        if fault is None:
            return
        if fault.startswith(OTHER_VERSION):
            SegmentReader(self._directory, base, self._files)  # raises the error that says so
        batch = self._first_batch(base)
        if batch is None:
            self.report.lost.append(f"segment {base}: {fault}, and no event in it is whole")
            return
        control = ControlPage(self._directory, files=self._files)
        size = control.options.segment_bytes
        control.close()
        fresh = pack_segment_header(base, size, batch.epoch, batch.append_time_ns)
        with os_errors(self._directory, "writing a segment's header"):
            descriptor = self._files.open_write(self._path(segment_name(base)))
            try:
                self._files.write(descriptor, [fresh], 0)
                self._files.sync(descriptor)
            finally:
                self._files.close(descriptor)
        self.report.done.append(f"made the header of segment {base} again ({fault})")

    def _first_batch(self, base: int) -> BatchHeader | None:
        with os_errors(self._directory, "mapping a segment"):
            descriptor = self._files.open_read(self._path(segment_name(base)))
            try:
                size = self._files.size(descriptor)
                if size <= FIRST_BATCH:
                    return None
                mapped = self._files.map(descriptor, size)
                data_end = self._files.data_end(descriptor, size)
            finally:
                self._files.close(descriptor)
        with mapped, memoryview(mapped) as view:
            found = find_batch_after(view, FIRST_BATCH, base, data_end)
        return None if found is None else found[1]

    # --- positions and journals ------------------------------------------------------------------

    def _table(self) -> offsets.OffsetTable:
        return offsets.OffsetTable(self._directory, files=self._files)

    def _mend_offsets(self) -> None:
        data = read_file(self._directory, offset_format.FILE_NAME, self._files)
        if data is None:
            if self._bases:
                self.report.lost.append("the offset table is gone: every consumer begins anew")
            return
        rows = damaged_rows(data)
        try:
            self._table().close()
            if not rows:
                return
        except UnknownFormat:
            is_known = offset_format.is_of_this_version(data)
            if data[: len(offset_format.MAGIC)] == offset_format.MAGIC and not is_known:
                raise
        except CorruptLog:
            pass
        self._replace(offset_format.FILE_NAME, offset_format.mended(data, set(rows)))
        table = self._table()
        count = len(table.all())
        table.close()
        self.report.done.append(f"made the offset table again, with {count} consumer(s)")
        self.report.lost += [f"the position of {what}" for what in rows.values()]

    def _tell_lost_states(self) -> None:
        if self._path(STATES_NAME) in self._files.copies:
            with suppress(LogNotFound), closing(self._table()) as table:
                self.report.lost += [lost_state(one[0], one[1]) for one in table.without_record()]

    def _mend_journal(self, name: str) -> None:
        data = read_file(self._directory, name, self._files)
        if data is None:
            return
        begin = journal_header()
        try:
            records, end = parse(data, self._directory, name)
        except (CorruptLog, UnknownFormat) as error:
            data = begin + data[len(begin) :]
            records, end = parse(data, self._directory, name)
            if not records and isinstance(error, UnknownFormat):
                raise
            if not records:
                self.report.lost.append(f"what the file {name!r} held")
            self.report.done.append(f"made the header of the file {name!r} again")
            self._replace(name, data)
        later = later_records(data, end)
        if later and name == DEAD_NAME:
            # Each letter stands for itself, so those after the damage are as good as before.
            self._replace(name, begin + b"".join(map(framed, [*records, *later])))
            self.report.lost.append("at least one dead letter")
        elif later:
            self.report.lost.append(LOST[name].format(len(later)))
        if data[end:].strip(b"\0"):
            self.report.done.append(f"cut the file {name!r} after its last whole record")
            Journal(self._directory, name, self._files).close()

    # --- what a start of the writer does ---------------------------------------------------------

    def _recover(self) -> None:
        """Cut and index, by the writer's own recovery; a log that needs neither is left alone."""
        log = LogReader(self._directory, self._files)
        try:
            wrong = wrong_indexes(log)
            self._drop_key_indexes(wrong_key_indexes(log))
            kinds = {fault.kind for fault in survey(log)}
            high_water = log.last_seq_no
        finally:
            log.close()
        tail = find_tail(self._directory, self._bases, self._files)
        is_tail_gone = bool(self._bases) and tail.last_seq_no < high_water
        if not (wrong or is_tail_gone or kinds & {"tail", "marks"}):
            return
        self._files.keep(self._path(offset_format.FILE_NAME))
        if is_tail_gone or "marks" in kinds:
            self._files.keep(self._path(page.FILE_NAME))
        with os_errors(self._directory, "removing an index"):
            for base in wrong:
                self._files.unlink(self._path(index_name(base)))
        last = self._run_recovery()
        self.report.done += [f"{text}: made it again" for text in wrong.values()]
        if tail.is_torn:
            self.report.done.append(f"cut a torn tail after event {last} ({tail.reason})")
        if last > high_water:
            self.report.done.append(f"published the events {high_water + 1} to {last}")
        if last < high_water:
            self.report.lost.append(
                f"the events {last + 1} to {high_water}, the last ones, are gone ({tail.reason})"
            )

    def _drop_key_indexes(self, wrong: dict[int, str]) -> None:
        with os_errors(self._directory, "removing an index by key"):
            for base, text in wrong.items():
                self._files.unlink(self._path(key_index_name(base)))
                self.report.done.append(f"{text}: removed it, it is made again when it is needed")

    def _run_recovery(self) -> int:
        """The number of the last event afterwards."""
        control = ControlPage(self._directory, writable=True, files=self._files)
        try:
            ended = control.writer_pid, control.writer_start
            control.writer_pid = os.getpid()  # as after a kill: nothing goes unlooked at
            opened = open_log(self._directory, self._files)
            last = opened.last_seq_no
            opened.abandon()
            # As before: acknowledgements in batches are for the writer's next start to look for.
            control.writer_pid, control.writer_start = ended
        finally:
            control.close()
        return last
