"""The samples of a log over the last seconds, and what they say together. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from eventlog.api.group import GroupReport, MemberReport
from eventlog.api.positions import ConsumerState
from eventlog.api.statistics import WriterStatistics
from eventlog.monitor.sample import Sample
from eventlog.monitor.views import ConsumerView, GroupView, LogView, MemberView, WriterView

RATE_S: Final = 5.0
"""Rates are those of the last so many seconds."""
TREND_LENGTH: Final = 60
"""How many samples a trend goes back."""


class History:
    """What one log was at the last moments at which somebody looked."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()
        self._rates: deque[int] = deque(maxlen=TREND_LENGTH)
        self._lags: dict[str, deque[int]] = {}

    def add(self, sample: Sample) -> LogView:
        """What is shown of the log after this sample; rates need another one before it."""
        samples = self._samples
        if samples and _is_another_log(samples[-1], sample):
            samples.clear()
        samples.append(sample)
        while len(samples) > 2 and sample.clock_s - samples[1].clock_s >= RATE_S:
            samples.popleft()
        return self._view(samples[0], sample)

    def _view(self, before: Sample, now: Sample) -> LogView:
        status = now.status
        appended = _per_s(before, now, before.status.last_seq_no or 0, status.last_seq_no or 0)
        if appended is not None:
            self._rates.append(round(appended))
        members = _members(before)
        groups = {one.name for one in now.groups or ()}
        self._lags = {
            name: self._lags.get(name, deque(maxlen=TREND_LENGTH)) for name in _names(now)
        }
        return LogView(
            path=status.path,
            taken_at=now.taken_at,
            first_seq_no=status.first_seq_no,
            last_seq_no=status.last_seq_no,
            bytes=status.bytes,
            segments=status.segments,
            durability=status.durability,
            appended_per_s=appended,
            trend=tuple(self._rates),
            writer=_writer(before, now),
            consumers=tuple(
                self._consumer(before, now, one, appended)
                for one in now.consumers
                if one.name not in groups  # `consumers` lists them, too
            ),
            groups=None
            if now.groups is None
            else tuple(self._group(before, now, one, appended, members) for one in now.groups),
        )

    def _consumer(
        self, before: Sample, now: Sample, state: ConsumerState, appended: float | None
    ) -> ConsumerView:
        was = {one.name: one.last_acked or 0 for one in before.consumers}
        position = state.last_acked or 0
        acked = _per_s(before, now, was.get(state.name), position)
        return ConsumerView(
            name=state.name,
            position=position,
            lag=state.lag,
            lag_s=_lag_s(now, state.name, state.lag),
            acked_per_s=acked,
            catch_up_s=_catch_up_s(state.lag, acked, appended),
            trend=self._trend(state.name, state.lag),
            last_seen=state.last_seen,
        )

    def _group(
        self,
        before: Sample,
        now: Sample,
        report: GroupReport,
        appended: float | None,
        members: Mapping[tuple[str, int], MemberReport],
    ) -> GroupView:
        was = {one.name: one.position for one in before.groups or ()}
        acked = _per_s(before, now, was.get(report.name), report.position)
        working = (now.members or {}).get(report.name)
        return GroupView(
            name=report.name,
            position=report.position,
            lag=report.lag,
            lag_s=_lag_s(now, report.name, report.lag),
            acked_per_s=acked,
            catch_up_s=_catch_up_s(report.lag, acked, appended),
            trend=self._trend(report.name, report.lag),
            in_flight=report.in_flight,
            redeliveries=report.redeliveries,
            dead_letters=report.dead_letters,
            members=report.members,
            working=None
            if working is None
            else tuple(
                _member(before, now, one, members.get((report.name, one.member_id)))
                for one in working
            ),
        )

    def _trend(self, name: str, lag: int) -> tuple[int, ...]:
        lags = self._lags[name]
        lags.append(lag)
        return tuple(lags)


def _is_another_log(before: Sample, now: Sample) -> bool:
    """Whether the log was made again meanwhile, so that nothing can be counted on."""
    return before.status.log_id != now.status.log_id or (before.status.last_seq_no or 0) > (
        now.status.last_seq_no or 0
    )


def _names(sample: Sample) -> list[str]:
    return [one.name for one in sample.consumers] + [one.name for one in sample.groups or ()]


def _members(sample: Sample) -> dict[tuple[str, int], MemberReport]:
    return {
        (group, one.member_id): one
        for group, members in (sample.members or {}).items()
        for one in members
    }


def _per_s(before: Sample, now: Sample, was: float | None, is_now: float) -> float | None:
    """How fast a number grew; 0 if it was set back, `None` where nothing is known of before."""
    passed = now.clock_s - before.clock_s
    return None if was is None or passed <= 0 else max(is_now - was, 0.0) / passed


def _lag_s(now: Sample, name: str, lag: int) -> float | None:
    if not lag:
        return 0.0
    since = now.waiting_since.get(name)
    return None if since is None else max((now.taken_at - since).total_seconds(), 0.0)


def _catch_up_s(lag: int, acked: float | None, appended: float | None) -> float | None:
    if not lag:
        return 0.0
    if acked is None or appended is None or acked <= appended:
        return None
    return lag / (acked - appended)


def _member(
    before: Sample, now: Sample, member: MemberReport, was: MemberReport | None
) -> MemberView:
    since = member.busy_since_ns
    return MemberView(
        pid=member.pid,
        handled=member.handled,
        failed=member.failed,
        in_flight=member.in_flight,
        handled_per_s=_per_s(before, now, None if was is None else was.handled, member.handled),
        busy_s=None if since is None else max(now.clock_s - since / 1e9, 0.0),
    )


def _writer(before: Sample, now: Sample) -> WriterView | None:
    pid = now.status.writer_pid
    if pid is None:
        return None
    if before.status.writer_pid != pid:  # another process, which counts from 0
        before = now
    cpu = (
        None
        if before.process is None or now.process is None
        else _per_s(before, now, before.process.cpu_s, now.process.cpu_s)
    )
    counted, was = now.writer, before.writer
    return WriterView(
        pid=pid,
        cpu_percent=None if cpu is None else 100 * cpu,
        rss_bytes=None if now.process is None else now.process.rss_bytes,
        connections=None if counted is None else counted.connections,
        bytes_per_s=_rate_of("bytes", before, now),
        batches_per_s=_rate_of("batches", before, now),
        syncs_per_s=_rate_of("syncs", before, now),
        mean_sync_s=None if counted is None or was is None else _mean_sync_s(was, counted),
        longest_sync_s=None if counted is None else counted.longest_sync_s,
    )


def _rate_of(name: str, before: Sample, now: Sample) -> float | None:
    if before.writer is None or now.writer is None:
        return None
    return _per_s(before, now, getattr(before.writer, name), getattr(now.writer, name))


def _mean_sync_s(was: WriterStatistics, counted: WriterStatistics) -> float | None:
    syncs = counted.syncs - was.syncs
    return (counted.sync_s - was.sync_s) / syncs if syncs > 0 else None
