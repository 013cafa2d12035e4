"""All looks together, and mending what can be mended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from eventlog.config import LogOptions
from eventlog.errors import (
    CorruptLog,
    EventLogError,
    LogNotFound,
    NotALog,
    PermissionDenied,
    UnknownFormat,
)
from eventlog.local import rendezvous
from eventlog.local.groups.stored import read_groups
from eventlog.local.storage.control import check_is_log
from eventlog.local.storage.files import FILES
from eventlog.local.storage.reading.reader import LogReader
from eventlog.tools.doctor.content import REPAIR, content_findings, name_findings
from eventlog.tools.doctor.findings import Finding
from eventlog.tools.doctor.place import (
    access_findings,
    accesses_of,
    file_system_findings,
    place_of,
    room_findings,
    wanted_mode,
)
from eventlog.tools.doctor.readers import consumer_findings, group_findings
from eventlog.tools.doctor.service import said_findings, service_findings, service_of
from eventlog.tools.repair import Repair, repair_log
from eventlog.tools.survey import segments_in


def examine(directory: str) -> list[Finding]:
    """Everything that there is to say of a log.

    Raises:
        LogNotFound, NotALog: there is none.
    """
    if os.path.isdir(directory) and not _is_open(directory):
        owner = os.stat(directory).st_uid
        what = f"you may not look into the directory, which belongs to the user with id {owner}"
        return [Finding(level="problem", about="access", what=what, do="run as its owner")]
    if not segments_in(directory, FILES):
        check_is_log(directory)
    try:
        log = LogReader(directory)
    except (EventLogError, OSError) as error:
        findings = [_unreadable(error), *_of_place(directory, None)]
    else:
        try:
            findings = [*_of_log(log), *_of_place(directory, log.options)]
        finally:
            log.close()
    return findings


def _is_open(directory: str) -> bool:
    has_effective = os.access in os.supports_effective_ids
    return os.access(directory, os.R_OK | os.X_OK, effective_ids=has_effective)


def _unreadable(error: Exception) -> Finding:
    match error:
        case UnknownFormat():
            do, remedy = "use the release that wrote it", None
        case PermissionDenied():
            return Finding(level="problem", about="access", what=str(error), do="run as its owner")
        case CorruptLog() | NotALog() | LogNotFound():
            return Finding(
                level="problem", about="format", what=str(error), do=REPAIR, remedy="repair"
            )
        case _:
            do, remedy = "see what the system says of the disk: dmesg", None
    return Finding(level="problem", about="format", what=str(error), do=do, remedy=remedy)


def _of_log(log: LogReader) -> Iterator[Finding]:
    def groups() -> Iterator[Finding]:
        return group_findings(read_groups(log.directory))

    def consumers() -> Iterator[Finding]:
        now = datetime.now(UTC)
        options = log.options
        stored_bytes = 0 if options.retention.max_bytes is None else log.stored_bytes()
        bases = log.segment_bases()
        return consumer_findings(log.consumers(), bases, stored_bytes, options, now)

    yield from _guarded(lambda: content_findings(log))
    yield from _guarded(lambda: service_findings(service_of(log.directory, log.control)))
    yield from _guarded(lambda: said_findings(log.directory))
    # Damage to positions and journals is among what was found of the files.
    yield from _guarded(consumers, is_said=True)
    yield from _guarded(groups, is_said=True)


def _of_place(directory: str, options: LogOptions | None) -> Iterator[Finding]:
    place = place_of(directory)
    yield from file_system_findings(place, options)
    if options is not None:
        yield from room_findings(place, options.segment_bytes)
    yield from _guarded(lambda: access_findings(accesses_of(directory), os.geteuid()))
    yield from _guarded(lambda: name_findings(directory))


def _guarded(look: Callable[[], Iterator[Finding]], *, is_said: bool = False) -> Iterator[Finding]:
    """What one look finds; that it cannot look is a finding, and no end of the others."""
    try:
        yield from look()
    except CorruptLog as error:
        if not is_said:
            yield _unreadable(error)
    except UnknownFormat as error:
        yield _unreadable(error)
    except (EventLogError, OSError) as error:
        yield Finding(level="problem", about="access", what=str(error), do="run as its owner")


# --- mending ------------------------------------------------------------------------------------


def mend(directory: str, findings: list[Finding]) -> Repair:
    """Do what the findings' remedies are.

    Raises:
        LogInUse: a writer serves the log, and it would have to be left alone for that.
    """
    report = Repair()
    remedies = {finding.remedy for finding in findings}
    if "modes" in remedies:
        _mend_modes(directory, report)
    if remedies & {"socket", "repair"}:
        with rendezvous.writers_locked_out(directory):
            if "socket" in remedies:
                FILES.unlink(os.path.join(directory, rendezvous.SOCKET_NAME))
                report.done.append("removed the socket that nobody listens on")
            if "repair" in remedies:
                repair = repair_log(directory)
                report.done += repair.done
                report.lost += repair.lost
                report.kept += repair.kept
    return report


def _mend_modes(directory: str, report: Repair) -> None:
    for access in accesses_of(directory):
        if access.mode != wanted_mode(access) and access.uid == os.geteuid():
            path = os.path.join(directory, access.name)
            if (not os.path.islink(path) and not os.path.isdir(path)) or not access.name:
                os.chmod(path, wanted_mode(access))
                what = access.name or "the directory"
                report.done.append(f"gave {what} the mode {wanted_mode(access):04o}")
