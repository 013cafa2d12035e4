"""The simulation finds bugs: with one thing broken, some histories show it, and say what it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from eventlog.api.expectation import Expectation
from eventlog.api.positions import SEQ_NO_MAX
from eventlog.errors import LogFull
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client import lease
from eventlog.local.client.member_events import MemberEvents
from eventlog.local.client.membership import Membership
from eventlog.local.client.outbox import Outbox
from eventlog.local.groups import endings, leasing, reconcile, records
from eventlog.local.groups.coordinator import Coordinator
from eventlog.local.groups.leasing import Leasing
from eventlog.local.groups.letters import DeadLetters
from eventlog.local.groups.order import _Line
from eventlog.local.groups.postponed import Postponed
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.formats.producers import ProducerTable
from eventlog.local.storage.log.last_of_keys import LastOfKeys
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.members import STARTED, MemberPage
from eventlog.local.storage.offsets import OffsetTable
from eventlog.local.storage.reading.batch_reader import BatchReader
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.writer.waiting import Waiting
from tests.simulation.world import simulate
from workers.loop import WorkerLoop

Break = Callable[[pytest.MonkeyPatch], None]
SEEDS = 150
"""As many as the short run has."""
MANY_SEEDS = 3_000


def forget_producers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ProducerTable, "find", lambda *_: None)


def forget_producers_at_a_start(patch: pytest.MonkeyPatch) -> None:
    real = WritableLog.__init__

    def init(self: WritableLog, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        self._producers = ProducerTable()

    patch.setattr(WritableLog, "__init__", init)


def forget_due_times_at_a_start(patch: pytest.MonkeyPatch) -> None:
    real = Postponed.begin_after
    patch.setattr(Postponed, "begin_after", lambda self, _: real(self, SEQ_NO_MAX))


def send_in_any_order(patch: pytest.MonkeyPatch) -> None:
    real = Outbox.pipe_broke

    def pipe_broke(self: Outbox) -> None:
        real(self)
        self.unsent = deque(reversed(self.unsent))

    patch.setattr(Outbox, "pipe_broke", pipe_broke)


def answer_what_is_not_stored(patch: pytest.MonkeyPatch) -> None:
    real = WritableLog.store

    def store(self: WritableLog, *batch: Any, **options: Any) -> int:
        if self.last_seq_no % 7 == 6:
            return self.last_seq_no + 1
        return real(self, *batch, **options)

    patch.setattr(WritableLog, "store", store)


def store_what_is_refused(patch: pytest.MonkeyPatch) -> None:
    real = WritableLog.store

    def store(self: WritableLog, *batch: Any, **options: Any) -> int:
        number = real(self, *batch, **options)
        if number % 5 == 4:
            raise LogFull("broken on purpose")
        return number

    patch.setattr(WritableLog, "store", store)


def wake_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Waiting, "wake", lambda *_: 0)


def skip_an_event(patch: pytest.MonkeyPatch) -> None:
    real = BatchReader.next_batch

    def next_batch(self: BatchReader) -> Any:
        if self.next_seq_no == 5 and self.last_readable > 5:
            self.next_seq_no += 1
        return real(self)

    patch.setattr(BatchReader, "next_batch", next_batch)


def move_back_by_ack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WritableLog, "ack", lambda self, name, to, _state=None: self.seek(name, to))


def read_a_position_ahead(patch: pytest.MonkeyPatch) -> None:
    real = LogReader.position_and_state

    def ahead(reader: LogReader, name: str) -> tuple[int, bytes | None]:
        position, state = real(reader, name)
        return position + 1, state

    patch.setattr(LogReader, "position_and_state", ahead)


def keep_the_state_of_before(patch: pytest.MonkeyPatch) -> None:
    real = OffsetTable.set

    def kept(table: OffsetTable, name: str, to: int, now: int, state: bytes | None = None) -> None:
        known = table.find(name)
        real(table, name, to, now, state or (known.state if known else None))

    patch.setattr(OffsetTable, "set", kept)


def hold_whatever_is_said(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leasing, "holds", lambda *_: True)


def keep_leases_of_the_dead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Coordinator, "_end_member", lambda *_: None)


def lease_what_is_leased(patch: pytest.MonkeyPatch) -> None:
    real = GroupState.take

    def take(self: GroupState, *asked: Any) -> Any:
        ranges = real(self, *asked)
        if ranges and ranges[0][0] % 3 == 0:
            self.order.put_back(ranges[:1])
        return ranges

    patch.setattr(GroupState, "take", take)


def start_without_a_mark(patch: pytest.MonkeyPatch) -> None:
    real, nothing = endings.settlement, bytes(64)
    patch.setattr(
        leasing,
        "settlement",
        lambda group, lease, _, **how: real(group, lease, nothing, **how),
    )


def sign_no_page(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemberPage, "claim", lambda *_: None)


def forget_acks_of_results(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Coordinator, "take_acks", lambda *_: None)


def forget_acks_at_a_start(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "_take_acks", lambda _found: iter(()))


def take_keys_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Line, "may_take", lambda *_: True)


def reject_without_a_letter(patch: pytest.MonkeyPatch) -> None:
    def reject(self: DeadLetters, state: GroupState, lease_id: int, seq_no: int, _: bytes) -> None:
        self._commit(records.Rejected(state.name, lease_id, seq_no))

    patch.setattr(DeadLetters, "reject", reject)


def never_compare(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_compare", lambda *_: None)


def keep_what_handlers_have(patch: pytest.MonkeyPatch) -> None:
    real = MemberEvents.envelope

    def envelope(self: MemberEvents, seq_no: int) -> EventEnvelope:
        found = real(self, seq_no)
        if 0 <= seq_no - self._base < len(self._events):
            self._events[seq_no - self._base] = found
        return found

    patch.setattr(MemberEvents, "envelope", envelope)


def stay_in_a_deleted_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WritableLog, "is_deleted", lambda _self: False)


def forget_failures_nobody_heard_of(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "FAILED", STARTED)


def admit_whatever_is_expected(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Expectation, "check", lambda *_: None)


def take_two_keys_of_a_hash_for_one(patch: pytest.MonkeyPatch) -> None:
    def last_in(self: LastOfKeys, base: int, position: int, key: str) -> int:
        twins = ("plumless", "buckeroo")
        return max(real(self, base, position, one) for one in ((key in twins and twins) or (key,)))

    real = LastOfKeys._last_in
    patch.setattr(LastOfKeys, "_last_in", last_in)


def remember_no_event_of_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LastOfKeys, "note", lambda *_: None)


def begin_events_of_a_key_together(patch: pytest.MonkeyPatch) -> None:
    real = WorkerLoop.__init__

    def init(self: WorkerLoop, *args: Any, **options: Any) -> None:
        real(self, *args, **{**options, "in_order": False})

    patch.setattr(WorkerLoop, "__init__", init)


def call_done_what_failed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerLoop, "raised", lambda self, envelope, *_: self.lease.done(envelope))


BREAKS: list[tuple[Break, str]] = [
    (admit_whatever_is_expected, "broken expectation"),
    (take_two_keys_of_a_hash_for_one, "wrong refusal"),
    (remember_no_event_of_a_key, "broken expectation"),
    (forget_producers, "duplicate"),
    (forget_producers_at_a_start, "duplicate"),
    (send_in_any_order, "reordered"),
    (answer_what_is_not_stored, "two values"),
    (store_what_is_refused, "refused append"),
    (wake_nobody, "lost wake-up"),
    (skip_an_event, "skipped read"),
    (move_back_by_ack, "position"),
    (read_a_position_ahead, "position"),
    (keep_the_state_of_before, "position"),
    (keep_leases_of_the_dead, "no rest"),
    (lease_what_is_leased, "two members"),
    (forget_acks_of_results, "own result"),
    (take_keys_at_once, "key order"),
    (reject_without_a_letter, "dead letter"),
    (begin_events_of_a_key_together, "key order"),
    (call_done_what_failed, "dead letter"),
    (keep_what_handlers_have, "changed event"),
    (stay_in_a_deleted_log, "another log"),
    (forget_due_times_at_a_start, "early"),
    (start_without_a_mark, "handled again"),
    (sign_no_page, "handled again"),
]
RARE: list[tuple[Break, str]] = [
    (hold_whatever_is_said, "superseded delivery"),
    (forget_acks_at_a_start, "not handled"),
    (never_compare, "key order"),
    (forget_failures_nobody_heard_of, "handled again"),
]
"""They take several faults at the same time."""


def is_found(kind: str, seeds: int) -> bool:
    """Whether one of the histories breaks that promise."""
    for seed in range(seeds):
        try:
            violations = simulate(seed).violations
        except Exception:  # noqa: BLE001 - broken code may also fail by itself
            continue
        if any(violation.kind == kind for violation in violations):
            return True
    return False


@pytest.mark.parametrize(("what", "kind"), BREAKS, ids=lambda one: getattr(one, "__name__", None))
def test_what_is_broken_is_found(what: Break, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    what(monkeypatch)
    assert is_found(kind, SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "kind"), RARE, ids=lambda one: getattr(one, "__name__", None))
def test_what_is_rarely_seen_is_found(
    what: Break, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    what(monkeypatch)
    assert is_found(kind, MANY_SEEDS)
