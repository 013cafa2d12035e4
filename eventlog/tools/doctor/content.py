"""What lies in a log's directory: known or not, of which format, whole or not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

from eventlog.api.times import AHEAD_NS
from eventlog.config import TABLE_NAME
from eventlog.errors import CorruptLog
from eventlog.event.moments import datetime_of
from eventlog.local import rendezvous
from eventlog.local.groups import corrections
from eventlog.local.storage import active_keys, control, journal, members, sharing, spare
from eventlog.local.storage.formats import offset_format, producers
from eventlog.local.storage.formats.format import VERSION, base_of_name, index_name, key_index_name
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader
from eventlog.tools.doctor.findings import Finding, size
from eventlog.tools.keep import is_kept_copy
from eventlog.tools.survey import find_tail, survey

KNOWN: Final = frozenset(
    {
        control.FILE_NAME,
        offset_format.FILE_NAME,
        producers.FILE_NAME,
        members.FILE_NAME,
        spare.FILE_NAME,
        journal.GROUPS_NAME,
        journal.DEAD_NAME,
        journal.STATES_NAME,
        active_keys.FILE_NAME,
        TABLE_NAME,
        corrections.FILE_NAME,
        sharing.FILE_NAME,
        rendezvous.LOCK_NAME,
        rendezvous.SOCKET_NAME,
        rendezvous.LOG_NAME,
        rendezvous.LOG_NAME + ".1",
    }
)
REPAIR: Final = "eventlog verify --repair {log}"


def content_findings(log: LogReader) -> Iterator[Finding]:
    """Format, segments, and all that `survey` sees."""
    bases = log.segment_bases()
    first, last = log.first_available, log.last_seq_no
    events = f"the events {first:,} to {last:,}" if first <= last else "no events"
    what = f"version {VERSION}: {events} in {len(bases):,} segments"
    yield Finding(level="ok", about="format", what=what)
    yield from _event_findings(log, bases)
    yield from _time_findings(log.sample_times(), time.time_ns())
    yield from _survey_findings(log)


def _event_findings(log: LogReader, bases: list[int]) -> Iterator[Finding]:
    """What can be seen of the events without reading them all."""
    first, last = log.first_available, log.last_seq_no
    for base in bases:
        try:
            SegmentReader(log.directory, base, log.files).close()
        except FileNotFoundError:
            continue  # retention has just deleted it
        except CorruptLog as error:
            yield Finding(
                level="problem", about="files", what=str(error), do=REPAIR, remedy="repair"
            )
    if first <= last and bases and bases[0] > first:
        what = f"the segment of event {first} is missing; the first one there has event {bases[0]}"
        yield Finding(level="problem", about="files", what=what, do="restore a backup")
    for hole in find_tail(log.directory, bases, log.files).holes_up_to(last):
        yield Finding(
            level="problem",
            about="files",
            what=f"the events {hole.first_seq_no} to {hole.last_seq_no} are damaged: {hole.reason}",
            do="restore a backup; `eventlog export --skip-damaged` saves all others",
        )


def _survey_findings(log: LogReader) -> Iterator[Finding]:
    faults = survey(log)
    for fault in faults:
        if fault.kind == "ahead":
            yield Finding(level="warning", about="consumers", what=fault.text, do=fault.do)
        elif fault.kind == "keys":
            what = f"{fault.text}; it is made again when it is needed"
            yield Finding(level="note", about="files", what=what, do=REPAIR, remedy="repair")
        elif fault.kind == "missing":
            do = "before the next writer starts, which makes an empty one"
            yield Finding(level="problem", about="files", what=fault.text, do=do)
        else:
            yield Finding(
                level="problem" if fault.is_problem else "note",
                about="files",
                what=fault.text + ("" if fault.is_problem else "; the next writer mends that"),
                do=REPAIR,
                remedy="repair",
            )
    if not faults:
        yield Finding(
            level="ok", about="files", what="nothing is torn; `eventlog verify` checks every event"
        )


def name_findings(directory: str) -> Iterator[Finding]:
    """Files that are no part of a log."""
    names = sorted(os.listdir(directory))
    bases = [base for base in map(base_of_name, names) if base is not None]
    owned = {*map(index_name, bases), *map(key_index_name, bases)}
    kept = [name for name in names if is_kept_copy(name)]
    if kept:
        total = sum(os.path.getsize(os.path.join(directory, name)) for name in kept)
        yield Finding(
            level="note",
            about="files",
            what=f"{len(kept)} file(s) that a repair kept a copy of ({size(total)}), as {kept[0]}",
            do="remove them when you no longer need them",
        )
    for name in names:
        if name in KNOWN or name in kept or name in owned or base_of_name(name) is not None:
            continue
        if name.endswith((".new", ".idx", ".keys")):
            what = f"{name} was left by a writer that died; the next one removes it"
            yield Finding(level="note", about="files", what=what)
        else:
            what = f"{name} is no file of the log, which takes no notice of it"
            yield Finding(level="note", about="files", what=what)


def _time_findings(times: dict[int, int], now_ns: int) -> Iterator[Finding]:
    """What stored times mean, by the numbers of their events."""
    ahead = {base: ns for base, ns in times.items() if ns > now_ns + AHEAD_NS}
    if ahead:
        newest = datetime_of(max(ahead.values()))
        yield Finding(
            level="warning",
            about="times",
            what=f"events from {min(ahead)} on have times in the future, up to"
            f" {newest:%Y-%m-%d %H:%M} UTC: the clock was ahead when they were stored, or is behind"
            " now; a seek by time takes them for as old as what follows, and they expire with it",
            do="see whether the clock is right: timedatectl",
        )
