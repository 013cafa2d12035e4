"""Dead letters: two keys of the log's bucket for each, the report and a copy of the event.

They outlive their group, and lie in the order in which they were written last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Final

import msgspec

from eventlog.api.group import DeadLetter, ExitReport, Failure
from eventlog.event.moments import datetime_of
from eventlog.jetstream.bucket import Bucket, name_of, word_of
from eventlog.remote.driver import Stored
from eventlog.remote.record import readable

REPORT_PART: Final = 4
"""A report's texts take at most one part in so many of the largest value."""


class Report(msgspec.Struct, omit_defaults=True):
    """What is known of a death, as JSON."""

    error: str
    deliveries: int
    failed_ns: int
    stored_ns: int = 0
    traceback: str | None = None
    exit_code: int | None = None
    peak_rss_bytes: int | None = None
    log_lines: tuple[str, ...] = ()


class Letters:
    """Those of one group."""

    def __init__(self, bucket: Bucket, group: str) -> None:
        self._bucket = bucket
        self._group = group
        self._prefix = f"dead.{word_of(group)}"

    def written(
        self,
        seq_no: int,
        event: Stored | None,
        deliveries: int,
        why: Failure | ExitReport,
        now: int,
    ) -> dict[str, bytes]:
        """What is to be written for one, by key."""
        report = Report(
            error=self._clipped(why.error),
            deliveries=deliveries,
            failed_ns=now,
            stored_ns=0 if event is None else event.stored_ns,
        )
        if isinstance(why, Failure):
            report.traceback = None if why.traceback is None else self._clipped(why.traceback)
        else:
            report.exit_code, report.peak_rss_bytes = why.exit_code, why.peak_rss_bytes
            report.log_lines = tuple(map(self._clipped, why.log_lines))
        found = {f"{self._prefix}.{seq_no}.report": msgspec.json.encode(report)}
        if event is not None:
            found[f"{self._prefix}.{seq_no}.event"] = bytes(event.record)
        return found

    def _clipped(self, text: str) -> str:
        """Its end, if it is so long that the server takes no such value."""
        limit = max(self._bucket.value_bytes_max // (6 * REPORT_PART), 1)  # JSON's escapes: six
        return text[-limit:]

    def removed(self, seq_no: int) -> dict[str, bytes]:
        """The same, to remove one."""
        return {f"{self._prefix}.{seq_no}.{part}": b"" for part in ("report", "event")}

    async def copy_of(self, seq_no: int) -> Stored | None:
        """The event of a letter; `None` if it has none."""
        record = (await self._bucket.read(f"{self._prefix}.{seq_no}.event")).data
        report = (await self._bucket.read(f"{self._prefix}.{seq_no}.report")).data
        if not record or not report:
            return None
        return Stored(seq_no, self._report(seq_no, report).stored_ns, record)

    async def numbers(self) -> list[int]:
        """The events of all letters, in the order in which they died."""
        found = await self._bucket.find(f"{self._prefix}.*.report")
        return [int(value.key.split(".")[2]) for value in found]

    async def all(self) -> list[DeadLetter]:
        """All letters, in that order."""
        reports: dict[int, bytes] = {}
        records: dict[int, bytes] = {}
        for value in await self._bucket.find(f"{self._prefix}.*.*"):
            _, _, number, part = value.key.split(".")
            (reports if part == "report" else records)[int(number)] = value.data
        return [self._letter(n, data, records.get(n)) for n, data in reports.items()]

    def _letter(self, seq_no: int, data: bytes, record: bytes | None) -> DeadLetter:
        report = self._report(seq_no, data)
        stored = Stored(seq_no, report.stored_ns, record or b"")
        event = readable(stored, self._bucket.path) if record else None
        known = asdict(_exit_report(report))
        return DeadLetter(
            event=None if event is None else event.event,
            key=None if event is None else event.key,
            headers=None if event is None else event.headers,
            seq_no=seq_no,
            traceback=report.traceback,
            deliveries=report.deliveries,
            group=self._group,
            failed_at=datetime_of(report.failed_ns),
            **known,
        )

    def _report(self, seq_no: int, data: bytes) -> Report:
        try:
            return msgspec.json.decode(data, type=Report)
        except msgspec.DecodeError:
            raise self._bucket.corrupt(f"{self._prefix}.{seq_no}.report", data) from None


def _exit_report(report: Report) -> ExitReport:
    return ExitReport(
        error=report.error,
        exit_code=report.exit_code,
        peak_rss_bytes=report.peak_rss_bytes,
        log_lines=report.log_lines,
    )


async def count_letters(bucket: Bucket) -> Counter[str]:
    """How many letters each group has."""
    found = await bucket.find("dead.*.*.report")
    return Counter(name_of(value.key.split(".")[1]) for value in found)
