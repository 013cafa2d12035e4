"""What a pool does for its group: make it, reject what killed its workers, retry dead letters."""

from __future__ import annotations

from typing import Any

from eventlog.api.group import ExitReport
from eventlog.errors import EventLogError
from eventlog.local.client.member_events import letter_of_death
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.wire.group_messages import AwaitCondemned, Bury, Dismiss, OpenGroup, RetryDead
from tests.simulation.clients import Client, Ways
from tests.simulation.members import GROUP, POOL_ID
from tests.simulation.writer import Action

KILLED = ExitReport(error="killed")


class Pool(Client):
    """A pool's own conversations; its workers are members."""

    def __init__(self, name: str, ways: Ways, ordering: str, max_deliveries: int) -> None:
        super().__init__(name, ways)
        self._fields = (ordering, max_deliveries)
        self._watching = self.new_line()
        self._operator = self.new_line()
        self._leaving = self.new_line()
        self._exhausted: list[int] = []
        self.ended: list[int] = []
        """Members whose process has ended, whoever holds their pipe."""
        self.is_ready = False

    def own_actions(self) -> list[Action]:
        found: list[Action] = []
        if self._watching.is_idle:
            found.append(self._go_on)
        if self.ended and self._leaving.is_idle:
            found.append(self._dismiss)
        may_retry = self.is_ready and not self.ways.is_settling and self.rng.random() < 0.3
        if may_retry and self._operator.is_idle:
            found.append(self._retry)
        return found

    def _request(self, kind: Any, *fields: Any) -> Any:
        return self._watching.channel.request(kind, *fields)

    def _go_on(self) -> None:
        if not self.is_ready:
            ordering, max_deliveries = self._fields
            self._watching.begin(
                self._request(OpenGroup, GROUP, ordering, max_deliveries, 0), self._opened
            )
        elif self._exhausted:
            seq_no = self._exhausted[0]
            letter = letter_of_death(self.handle, GROUP, seq_no, KILLED)
            self._watching.begin(self._request(Bury, GROUP, 0, seq_no, letter), self._rejected)
        else:
            self._watching.begin(self._request(AwaitCondemned, GROUP, POOL_ID), self._condemned)

    def _opened(self, _result: Any, error: EventLogError | None) -> None:
        self.is_ready = error is None

    def _condemned(self, result: Any, error: EventLogError | None) -> None:
        if error is None:
            self._exhausted = [seq_no for seq_no, _, _ in result.events]
            self.note("condemned", seq_nos=tuple(self._exhausted))

    def _rejected(self, _result: Any, error: EventLogError | None) -> None:
        if error is None:
            self._exhausted.pop(0)

    def _dismiss(self) -> None:
        member_id = self.ended[0]
        request = self._leaving.channel.request(Dismiss, GROUP, member_id)
        self._leaving.begin(request, self._dismissed)

    def _dismissed(self, _result: Any, error: EventLogError | None) -> None:
        if error is None:
            self.ended.pop(0)

    def _retry(self) -> None:
        letters = read_dead_letters(self.ways.directory, GROUP)
        seq_nos = [letter.seq_no for letter in letters]
        if seq_nos:
            self.note("retry", seq_nos=seq_nos)
            ranges = tuple((number, number) for number in seq_nos)
            self._operator.begin(
                self._operator.channel.request(RetryDead, GROUP, ranges),
                lambda _result, _error: None,
            )
