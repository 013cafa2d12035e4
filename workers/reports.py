"""How workers ended, for whoever rejects the events that killed them."""

from __future__ import annotations

from typing import Final

import anyio

from eventlog import Exhausted, ExitReport

REPORTS_KEPT: Final = 1024
REPORT_S_MAX: Final = 5.0
"""How long to wait for a worker's end whose pipe to the writer is closed: it is dying."""


class ExitReports:
    """The latest reports, by members of the group."""

    def __init__(self) -> None:
        self._reports: dict[int, ExitReport] = {}
        self._awaited: dict[int, anyio.Event] = {}
        """Members whose end somebody waits for."""

    def add(self, member_id: int, report: ExitReport) -> None:
        """A worker has ended; who waits for its report finds it."""
        self._reports[member_id] = report
        if len(self._reports) > REPORTS_KEPT:
            del self._reports[next(iter(self._reports))]
        if member_id in self._awaited:
            self._awaited[member_id].set()

    async def find(self, exhausted: Exhausted, *, is_own: bool) -> ExitReport:
        """How the last member ended that had the event; one of the pool's own is waited for."""
        member_id = exhausted.member_id
        if member_id not in self._reports and is_own:
            ended = self._awaited.setdefault(member_id, anyio.Event())
            with anyio.move_on_after(REPORT_S_MAX):
                await ended.wait()
            self._awaited.pop(member_id, None)
        lost = ExitReport(error=f"its worker was lost {exhausted.deliveries} times")
        return self._reports.get(member_id, lost)  # of others' workers nothing is known
