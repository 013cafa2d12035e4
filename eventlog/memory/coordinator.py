"""The groups of one log in memory: what joins their model with the log, a clock and results.

Any thread may call it, and nothing here waits: that is left to the two shells, `group` for trio and
asyncio and `blocking_group` for threads.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any

from eventlog.api.group import DeadLetter, Exhausted, ExitReport, Failure, GroupReport
from eventlog.api.refusals import expired, group_mismatch
from eventlog.api.times import SETTLED_NS
from eventlog.errors import CorruptLog, EventsTruncated, InvalidArgument
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.due import due_of_row
from eventlog.event.envelope import EventEnvelope
from eventlog.event.moments import datetime_of
from eventlog.memory.groups import GroupModel, Held, Seat
from eventlog.memory.letters import Letter, Letters

if TYPE_CHECKING:
    from eventlog.memory.model import MemoryLog

KEYS_KEPT = 65_536


class Groups:
    """The groups of one log."""

    def __init__(self, log: MemoryLog, lock: RLock) -> None:
        self._log = log
        self.log_id = log.log_id
        self.lock = lock
        self._models: dict[str, GroupModel] = {}
        self._letters: dict[str, Letters] = defaultdict(Letters)
        self._keys: dict[int, str | None] = {}

    def open(self, name: str, ordering: str | None, max_deliveries: int, position: int) -> None:
        """Make the group, or check that it works as the caller says.

        Raises:
            GroupMismatch: it has members that work with other options.
        """
        with self.changing():
            known = self._models.get(name)
            wanted = ordering, max_deliveries
            if known and known.members and (known.ordering, known.max_deliveries) != wanted:
                raise group_mismatch(name, self._log.path, known.ordering, known.max_deliveries)
            if known is not None:
                known.ordering, known.max_deliveries = wanted
            else:
                letters = self._letters[name]
                self._models[name] = GroupModel(name, ordering, max_deliveries, position, letters)

    def get(self, name: str) -> GroupModel:
        """The group.

        Raises:
            InvalidArgument: there is none of that name.
        """
        if name not in self._models:
            raise InvalidArgument(
                f"the log {self._log.path} has no group {name!r}; `log.group` makes it",
                path=self._log.path,
                consumer=name,
            )
        return self._models[name]

    def has(self, name: str) -> bool:
        """Whether there is a group of that name."""
        return name in self._models

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A step that changes groups: their positions are stored, and whoever waits looks again."""
        with self.lock:
            yield
            for name, model in self._models.items():
                model.pass_deleted(self._log.first_available)
                self._log.note_position(name, model.position)
            self._log.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._log.wake()

    def reports(self) -> list[GroupReport]:
        """All groups, by name."""
        with self.lock:
            return [self._models[name].report(self._log.last) for name in sorted(self._models)]

    def postponed(self) -> int:
        """How many events groups have come to that are not due yet."""
        with self.lock:
            return sum(len(model.postponed) for model in self._models.values())

    def lag(self, name: str) -> int:
        """How many events are after the group's position."""
        with self.lock:
            return self._log.last - self.get(name).position

    # --- members and leases ------------------------------------------------------------------

    def join(self, name: str, owner: int, member_id: int, pid: int) -> None:
        """Add a member."""
        with self.changing():
            self.get(name).members[member_id] = Seat(member_id, owner, pid)

    def take(self, name: str, member_id: int, count: int, least: int) -> Held | None:
        """Events for a member; `None` if there are none now.

        Raises:
            InvalidArgument: it is no member, or there is no such group any more.
        """
        with self.lock:
            model = self.get(name)
            if member_id not in model.members:
                raise InvalidArgument(
                    f"member {member_id} of the group {name!r} has left or was dismissed; open"
                    " another one",
                    path=self._log.path,
                    consumer=name,
                )
            model.resume(time.monotonic_ns())
            if self._log.has_due:
                model.postpone(self._log.last, self._due_of, self._log.clock.now())
            model.pass_deleted(self._log.first_available)
            held = model.take(member_id, count, least, self._log.last, self.key_of)
            if held is None and model.recall(member_id):
                held = model.take(member_id, count, least, self._log.last, self.key_of)
            if held is not None:
                self._log.counters.leased += len(held.todo)
                self._log.counters.redelivered += sum(n in model.failures for n in held.todo)
            return held

    def wait_s(self, name: str) -> float | None:
        """How long until a failed event may be tried again, or one is due."""
        with self.lock:
            model = self._models.get(name)
            if model is None:
                return None
            waits = []
            if (due := model.next_due_ns()) is not None:
                waits.append(due - time.monotonic_ns())
            if model.postponed:  # nobody tells of a jump of the wall clock
                first = min(model.postponed.values())
                waits.append(min(first - self._log.clock.now(), SETTLED_NS))
            return max(min(waits), 0) / 1e9 if waits else None

    def next_of(
        self, name: str, held: Held, unpacked: dict[int, EventEnvelope]
    ) -> tuple[int, EventEnvelope] | None:
        """The lease's next event, with its attempt; `None` if there is none.

        An event that retention has deleted needs no handling. `unpacked` has what was unpacked for
        this lease and not handed out, for a batch is unpacked whole.
        """
        while True:
            with self.lock:
                if not held.todo:
                    return None
                seq_no = held.todo.popleft()
                model = self.get(name)
                held.out.add(seq_no)
                attempt = model.attempt_of(seq_no)
                if seq_no not in unpacked or self._letters[name].corrected(seq_no):
                    unpacked.update({one.seq_no or 0: one for one in self._rest(name, seq_no)})
                envelope = unpacked.pop(seq_no, None)
                if envelope is not None and self._has_expired(model, seq_no, envelope):
                    self.failed(
                        name,
                        held,
                        seq_no,
                        Failure(error=expired(envelope.due.expires_ns), is_final=True),
                    )
                    continue
                if envelope is not None:
                    return attempt, envelope
                with self.changing():
                    model.finish(held, seq_no)

    def _has_expired(self, model: GroupModel, seq_no: int, envelope: EventEnvelope) -> bool:
        """Whether it is not to be started any more; a dead letter that is retried always may be."""
        expires_ns = envelope.due.expires_ns
        is_late = 0 < expires_ns <= self._log.clock.now()
        return is_late and seq_no not in model.letters.retried

    def _due_of(self, seq_no: int) -> int:
        """When an event is due, in nanoseconds since 1970; 0 if it is now, or is deleted."""
        with suppress(EventsTruncated):
            batch = self._log.batch_of(seq_no)
            area = None if batch is None else batch.due()
            if batch is not None and area is not None:
                return due_of_row(area, seq_no - batch.base_seq_no).not_before_ns
        return 0

    def begin(self, name: str, held: Held, seq_no: int) -> bool:
        """The event's handler begins; false if the event is not the lease's any more."""
        with self.lock:
            model = self._models.get(name)
            if model is None or not model.holds(held, seq_no):
                return False
            model.begin(held, seq_no, time.monotonic_ns())
            return True

    def end(self, name: str, member_id: int) -> None:
        """A member has left, or is dead."""
        with self.changing():
            if name in self._models:
                self._models[name].end(member_id)

    def excuse(self, name: str, owner: int) -> None:
        """The owner ends its members: what they have begun has not failed."""
        with self.changing():
            self.get(name).excused.add(owner)

    # --- what becomes of a delivery ----------------------------------------------------------

    def done(self, name: str, held: Held, seq_no: int) -> None:
        """It has succeeded."""
        with self.changing():
            model = self._models.get(name)
            if model is not None and model.holds(held, seq_no):
                model.finish(held, seq_no)

    def done_with(self, name: str, held: Held, seq_no: int, results: list[Any]) -> None:
        """It has succeeded, and its results are stored in the same step.

        Raises:
            EventLogError: they cannot be stored; nothing has changed.
        """
        with self.changing():
            model = self._models.get(name)
            if model is None or not model.holds(held, seq_no):
                return
            builder = BatchBuilder(self._log.options.max_event_bytes, self._log.path)
            for result in results:
                builder.add(result)
            if results:
                first = self._log.append(builder.build())
                model.note_done(first, first + len(results) - 1)
            model.finish(held, seq_no)

    def returned(self, name: str, held: Held, seq_no: int) -> None:
        """Its handler has returned; should its member end now, no delivery has failed."""
        with self.lock:
            if name in self._models and self._models[name].holds(held, seq_no):
                held.returned.add(seq_no)

    def failed(self, name: str, held: Held, seq_no: int, failure: Failure) -> None:
        """It has failed: the event waits, or is a dead letter."""
        with self.changing():
            model = self._models.get(name)
            if model is None or not model.holds(held, seq_no):
                return
            deliveries = model.attempt_of(seq_no)
            due_ns = time.monotonic_ns() + int(failure.delay_s * 1e9)
            is_final = failure.is_final
            if model.fail(held, seq_no, due_ns, is_final=is_final, key_of=self.key_of):
                report = ExitReport(error=failure.error)
                letter = self._letter(name, seq_no, deliveries, report, failure.traceback)
                model.bury(seq_no, letter)

    def give_back(self, name: str, held: Held) -> None:
        """What the lease has not begun goes to others."""
        with self.changing():
            if name in self._models:
                self._models[name].give_back(held)

    def exhausted(self, name: str, owner: int) -> list[Exhausted]:
        """Those that `owner` may reject."""
        with self.lock:
            return self.get(name).exhausted_for(owner)

    def reject(self, name: str, exhausted: Exhausted, report: ExitReport) -> None:
        """Make an exhausted event a dead letter."""
        with self.changing():
            model = self.get(name)
            seq_no, deliveries = exhausted.seq_no, exhausted.deliveries
            if seq_no in model.exhausted:
                model.bury(seq_no, self._letter(name, seq_no, deliveries, report, None))

    def is_drained(self, name: str, seq_no: int) -> bool:
        """Whether everything up to the number is done, or dead."""
        with self.lock:
            model = self.get(name)
            model.pass_deleted(self._log.first_available)
            return model.is_drained(seq_no)

    # --- dead letters ------------------------------------------------------------------------

    def _letter(
        self, name: str, seq_no: int, deliveries: int, report: ExitReport, traceback: str | None
    ) -> Letter:
        found = self.envelope_of(name, seq_no)
        letter = DeadLetter(
            event=None if found is None else found.event,
            key=None if found is None else found.key,
            headers=None if found is None else found.headers,
            seq_no=seq_no,
            error=report.error,
            traceback=traceback,
            deliveries=deliveries,
            group=name,
            exit_code=report.exit_code,
            peak_rss_bytes=report.peak_rss_bytes,
            log_lines=report.log_lines,
            failed_at=datetime_of(time.time_ns()),
        )
        return Letter(letter, found, self._letters[name].corrected(seq_no) is not None)

    def dead_letters(self, name: str) -> list[DeadLetter]:
        """Those that are listed, each a copy of the caller's own."""
        with self.lock:
            return copy.deepcopy(self._letters[name].listed())

    def retry_dead(self, name: str, seq_nos: set[int]) -> int:
        """Hand dead letters out again.

        Raises:
            InvalidArgument: there is no such group, or an event is nowhere any more.
        """
        with self.changing():
            model = self.get(name)
            stored = model.letters.stored
            lost = [n for n in stored if n in seq_nos and self.envelope_of(name, n) is None]
            if lost:
                raise InvalidArgument(
                    f"event {lost[0]} of the log {self._log.path} was deleted by retention, and its"
                    f" dead letter has no copy of it, so the group {name!r} cannot be handed it"
                    " again: drop this letter",
                    path=self._log.path,
                    consumer=name,
                    seq_no=lost[0],
                )
            return model.retry(seq_nos)

    def retry_corrected(self, name: str, seq_no: int, event: EventEnvelope) -> int:
        """Hand a dead letter out again, with the payload of another event; 1 if it was one.

        Raises:
            InvalidArgument: there is no such group.
        """
        with self.changing():
            model = self.get(name)
            old = self.envelope_of(name, seq_no) or event
            return model.retry({seq_no}) if model.letters.correct(seq_no, old, event) else 0

    def drop_dead(self, name: str, seq_nos: set[int]) -> int:
        """Forget dead letters."""
        with self.lock:
            return self._letters[name].drop(seq_nos)

    # --- the events --------------------------------------------------------------------------

    def envelope_of(self, name: str, seq_no: int) -> EventEnvelope | None:
        """The event as it was appended, or its dead letter's copy; `None` if it is nowhere."""
        return next(iter(self._rest(name, seq_no)), None)

    def _rest(self, name: str, seq_no: int) -> list[EventEnvelope]:
        """The event and what follows it in its batch, each read anew."""
        if corrected := self._letters[name].corrected(seq_no):
            return [copy.deepcopy(corrected)]
        try:
            return self._log.next_batch(seq_no) or []
        except EventsTruncated:
            letter = self._letters[name].stored.get(seq_no)
            return [] if letter is None or letter.copy is None else [copy.deepcopy(letter.copy)]
        except CorruptLog:  # a stranger's, on a server that the model works for
            return []

    def key_of(self, seq_no: int) -> str | None:
        """The event's key; `None` also for one that retention has deleted."""
        if seq_no not in self._keys:
            if len(self._keys) > KEYS_KEPT:
                self._keys.clear()
            try:
                batch = self._log.next_batch(seq_no) or []
            except (EventsTruncated, CorruptLog):
                return None
            self._keys.update({one.seq_no or 0: one.key for one in batch})
        return self._keys[seq_no]

    # --- the groups as consumers -------------------------------------------------------------

    def skip(self, name: str, position: int) -> int:
        """The consumer acknowledges; where it is then."""
        if name not in self._models:
            return position
        with self.changing():
            self._models[name].skip(position)
            return self._models[name].position

    def seek(self, name: str, position: int) -> None:
        """The consumer's position was set."""
        if name in self._models:
            with self.changing():
                self._models[name].seek(position)

    def forget(self, name: str) -> None:
        """Remove the group; its dead letters stay until they are dropped."""
        with self.lock:
            model = self._models.pop(name, None)
            if model is not None:
                model.seek(model.position)

    def pass_deleted(self) -> None:
        """Retention has deleted events."""
        for name, model in self._models.items():
            if model.pass_deleted(self._log.first_available):
                self._log.note_position(name, model.position)
