"""What a pool does for its group: make it, bury what killed its workers, retry dead letters."""

from __future__ import annotations

from typing import Any

from eventlog.errors import EventLogError
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.wire.group_messages import AwaitCondemned, Bury, OpenGroup, RetryDead
from tests.groups.world import pack_letter
from tests.simulation.clients import Client, Ways
from tests.simulation.members import GROUP, POOL_ID
from tests.simulation.writer import Action

LETTER = pack_letter(event=None, key=None, headers=None, error="killed")


class Pool(Client):
    """A pool's own conversations; its workers are members."""

    def __init__(self, name: str, ways: Ways, ordering: str, max_deliveries: int) -> None:
        super().__init__(name, ways)
        self._fields = (ordering, max_deliveries)
        self._watching = self.new_line()
        self._operator = self.new_line()
        self._to_bury: list[int] = []
        self.is_ready = False

    def own_actions(self) -> list[Action]:
        found: list[Action] = []
        if self._watching.is_idle:
            found.append(self._go_on)
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
        elif self._to_bury:
            seq_no = self._to_bury[0]
            self._watching.begin(self._request(Bury, GROUP, 0, seq_no, LETTER), self._buried)
        else:
            self._watching.begin(self._request(AwaitCondemned, GROUP, POOL_ID), self._condemned)

    def _opened(self, _result: Any, error: EventLogError | None) -> None:
        self.is_ready = error is None

    def _condemned(self, result: Any, error: EventLogError | None) -> None:
        if error is None:
            self._to_bury = [seq_no for seq_no, _, _ in result.events]
            self.note("condemned", seq_nos=tuple(self._to_bury))

    def _buried(self, _result: Any, error: EventLogError | None) -> None:
        if error is None:
            self._to_bury.pop(0)

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
