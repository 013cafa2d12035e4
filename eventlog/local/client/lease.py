"""A lease as a member uses it: its events one by one, and what became of them.

::

    iterate --> begin() ... the handler ... done()       --.
                                       |--> done_with()   --+--> settle(), a few times a second
                                       `--> failed()            and at the end

For each event, in this order: its row in the member's page says "started"; the handler runs; its
results are stored; the row says "done"; later one message settles many. A kill between any two of
these leaves a page that says exactly what to do with the event: count a delivery, or nothing at
all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from time import monotonic_ns
from typing import Any, Final

from eventlog.api.group import Failure, Lease, described
from eventlog.api.refusals import closed
from eventlog.errors import EventLogError, EventsTruncated, StaleLease
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import key_hash
from eventlog.local.client.conversations import Steps
from eventlog.local.client.lease_holder import Holder
from eventlog.local.client.member_events import EventExpired
from eventlog.local.client.membership import HeldEvents
from eventlog.local.groups.ranges import ranges_of
from eventlog.local.storage.members import (
    DONE,
    FAILED,
    NOT_STARTED,
    PAGE,
    RETURNED,
    STARTED,
    MemberPage,
)
from eventlog.local.wire.group_messages import FailDelivery, Release, Settle

logger = logging.getLogger("eventlog")
DELAY_S_MAX: Final = 10.0**9
_NOBODY: Final = EventEnvelope(None)
"""In place of the event that runs alone, where the usual way is left."""

_STARTED_NS: Final = PAGE.word("started_ns")
_RUNNING: Final = PAGE.word("running")
_HANDLED: Final = PAGE.word("handled")
_FAILED: Final = PAGE.word("failed")
_RETRIED: Final = PAGE.word("retried")
_IN_FLIGHT: Final = PAGE.word("in_flight")


class LocalLease(Lease):
    """See `Lease`. `settle_if_due` may be called by another thread meanwhile."""

    def __init__(self, member: Holder, held: HeldEvents) -> None:
        self.member = member
        self.held = held
        self._pipe = member.pipe
        self._membership = member.pipe.membership
        self._events = member.events
        self._is_over = False
        """The member's page belongs to a later lease."""
        self._current: EventEnvelope | None = None
        self._row = self._seq_no = 0
        """The event that came out last, its row and its number."""
        self._alone: EventEnvelope | None = _NOBODY if held.count == 1 else None
        """The event that runs while no other does and nothing is out of the usual; see `begin`."""
        self._begun_ns = 0
        self._rows: dict[int, int] | None = None
        self._running: dict[int, int] = {}
        """When each event began whose handler runs, by its number; the oldest first."""
        self._done: list[int] = []
        """Events that are done, and not settled."""
        self._lost: list[int] = []
        """Events that retention deleted before they were begun."""
        self._returned: list[tuple[int, EventEnvelope]] = []
        """(row, event) of those whose results wait to be stored."""
        self._returned_keys: set[str] = set()
        """Their keys, where keys are kept in order."""
        self._settled_ns = monotonic_ns()
        self._settling = threading.RLock()
        """Guards what was returned and is not stored, and what is done and not said."""

    @property
    def count(self) -> int:
        return self.held.count

    @property
    def is_lost(self) -> bool:
        return self.held.is_stale

    @property
    def _page(self) -> MemberPage:
        page = self._membership.page
        if page is None:
            raise closed("member", self.member.path)
        return page

    # --- one event at a time -----------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[int, EventEnvelope]]:
        # Bound here, because a pool of trivial handlers is bound by this loop.
        held, take, read = self.held, self.held.todo.popleft, self._events.envelope
        failures, settle_ns = held.failures, self.member.settle_ns
        while True:
            try:
                row, seq_no = take()
            except IndexError:
                return
            try:
                envelope = read(seq_no)
            except EventExpired as error:
                self._expired(seq_no, error)
                continue
            except EventLogError as error:
                self._cannot_read(row, seq_no, error)
                continue
            if self._alone is not None:  # it still runs, and `_row` is about to be another's
                self._leave_usual_way()
            self._current, self._row, self._seq_no = envelope, row, seq_no
            if self._begun_ns - self._settled_ns > settle_ns:
                self.settle_if_due()
            if seq_no not in failures:
                yield 1, envelope
            else:
                attempt = failures[seq_no] + 1
                envelope.columns.note_attempt(seq_no, attempt)
                yield attempt, envelope

    def _cannot_read(self, row: int, seq_no: int, error: EventLogError) -> None:
        """An event that retention has deleted needs no handling; a damaged one is a dead letter.

        One that was a dead letter stays one.
        """
        letter = self._events.letter(seq_no)
        if letter is None and isinstance(error, EventsTruncated):
            self._lost.append(seq_no)
            self._page.states[row] = DONE
            self._done.append(seq_no)
            return
        logger.error(
            "event %d of group %s is a dead letter now: %s", seq_no, self.member.group, error
        )
        letter = letter or self._events.fitting_letter(seq_no, described(error))
        self.held.gone.add(seq_no)
        self._say_failed(seq_no, Failure(error=str(error), is_final=True), letter)

    def _expired(self, seq_no: int, error: EventExpired) -> None:
        """An event that is not to be started any more is a dead letter."""
        logger.info(
            "event %d of group %s is a dead letter now: %s", seq_no, self.member.group, error
        )
        letter = self._events.fitting_letter(seq_no, str(error))
        self.held.gone.add(seq_no)
        self._say_failed(seq_no, Failure(error=str(error), is_final=True), letter)

    def _row_of(self, seq_no: int) -> int:
        if self._rows is None:
            self._rows = {number: row for row, number in enumerate(self.held.numbers)}
        return self._rows[seq_no]

    def begin(self, envelope: EventEnvelope) -> bool:
        if envelope is not self._current or self._alone is not None:
            return self._begin_beside(envelope)
        # The usual way, and as short as can be: nothing else runs, and nothing was given back.
        page = self._membership.page
        if page is None:
            raise closed("member", self.member.path)
        words = page.words
        page.states[self._row] = STARTED
        words[_RUNNING] = self._seq_no
        words[_STARTED_NS] = self._begun_ns = monotonic_ns()
        self._alone = envelope
        return True

    def _begin_beside(self, envelope: EventEnvelope) -> bool:
        """As `begin`, of any event, whatever else runs."""
        self._leave_usual_way()
        seq_no = envelope.seq_no
        assert seq_no is not None
        if self._returned_keys and envelope.key in self._returned_keys:
            # Else a death would bring the earlier event back after this one was handled.
            self.settle()
        if self.held.is_stale or seq_no in self.held.gone:
            return False
        self._running[seq_no] = self._begun_ns = monotonic_ns()
        if not self._is_over:
            self._page.states[self._row_of(seq_no)] = STARTED
            self._show()
        return True

    def _leave_usual_way(self) -> None:
        """From now on in this lease events are begun and ended by their numbers."""
        one, self._alone = self._alone, _NOBODY
        if one is not None and one is not _NOBODY:
            self._running[one.seq_no or 0] = self._begun_ns

    def done(self, envelope: EventEnvelope) -> None:
        page = self._membership.page
        if page is None:
            raise closed("member", self.member.path)
        words = page.words
        if envelope is self._alone:
            page.states[self._row] = DONE
            words[_HANDLED] += 1
            words[_STARTED_NS] = 0
            self._done.append(self._seq_no)
            self._alone = None
            return
        seq_no = envelope.seq_no
        assert seq_no is not None
        if not self._is_over:
            page.states[self._row_of(seq_no)] = DONE
        words[_HANDLED] += 1
        self._ended(envelope)
        self._done.append(seq_no)
        if self.held.count == 1 or self._is_over:
            self.settle()

    def done_with(self, envelope: EventEnvelope, results: Collection[Any]) -> None:
        writer = self.member.results
        if writer is None or not results:
            self.done(envelope)
            return
        row = self._row_of(envelope.seq_no or 0)
        with self._settling:
            writer.add_all(envelope, results)
            self._ended(envelope)
            if not self._is_over:
                self._page.states[row] = RETURNED
            self._returned.append((row, envelope))
            if self.member.is_ordered and envelope.key is not None:
                self._returned_keys.add(envelope.key)
                self._leave_usual_way()
            if writer.is_full or self.held.count == 1 or self._is_over:
                self.settle()

    def failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        self._ended(envelope)
        self._failed(envelope, failure)

    def _ended(self, envelope: EventEnvelope) -> None:
        """The handler does not run any more."""
        if envelope is self._alone:
            self._alone = None
        else:
            self._running.pop(envelope.seq_no or 0, None)
        self._show()

    def _show(self) -> None:
        """The oldest of what runs: a time limit is about that one."""
        words = self._page.words
        for seq_no, begun_ns in self._running.items():
            words[_RUNNING], words[_STARTED_NS] = seq_no, begun_ns
            break
        else:
            words[_STARTED_NS] = 0
        words[_IN_FLIGHT] = len(self._running)

    # --- failures ----------------------------------------------------------------------------

    def _failed(self, envelope: EventEnvelope, failure: Failure) -> None:
        """Say it, and have it in the page should both the writer and this process die now."""
        seq_no = envelope.seq_no or 0
        if not self._is_over:
            self._page.states[self._row_of(seq_no)] = FAILED
        is_last = failure.is_final or self._attempt_of(seq_no) >= self.member.max_deliveries
        letter = b""
        if is_last:
            letter = self._events.fitting_letter(seq_no, failure.error, failure.traceback)
        self._say_failed(seq_no, failure, letter)
        if not is_last and self.member.is_ordered and envelope.key is not None:
            self._give_back_behind(envelope.key)

    def _attempt_of(self, seq_no: int) -> int:
        return self.held.failures.get(seq_no, 0) + 1

    def _say_failed(self, seq_no: int, failure: Failure, letter: bytes) -> None:
        """The letter goes along where this may be the last delivery; the writer decides it."""
        # Counted first: who waits for the group may look as soon as the writer knows.
        words = self._page.words
        words[_FAILED] += 1
        words[_RETRIED] += 0 if letter else 1
        self._pipe.say_of(
            self.held,
            FailDelivery,
            self.held.lease_id,
            seq_no,
            int(min(max(failure.delay_s, 0.0), DELAY_S_MAX) * 1e9),
            int(failure.is_final),
            letter,
        )

    def _give_back_behind(self, key: str) -> None:
        """The later events of a key whose event failed have to wait for it."""
        wanted = key_hash(key)
        with self._pipe.changed:
            behind = {n for n in self._not_begun() if self._events.may_be_of(n, wanted)}
            self._release(behind)

    # --- settling ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Say what is done, and store what was returned."""
        with self._settling:
            self.member.carry_out(self._settle())

    def _settle(self) -> Steps[None]:
        self._settled_ns = monotonic_ns()
        if self._returned:
            yield from self._store()
            # Not before: the next event of such a key waits for the lock only while it is here.
            self._returned_keys.clear()
        if count := len(self._done):  # more may be added meanwhile, without the lock
            ranges = tuple(ranges_of(self._done[:count]))
            self._pipe.say_of(self.held, Settle, self.held.lease_id, ranges)
            del self._done[:count]

    def settle_if_due(self) -> None:
        """A handler may run for long; what was done before it is not to wait for that."""
        if monotonic_ns() - self._settled_ns > self.member.settle_ns:
            if self._returned or self._done:
                self.settle()
            else:
                self._settled_ns = monotonic_ns()

    def _store(self) -> Steps[None]:
        writer = self.member.results
        assert writer is not None
        returned, self._returned = self._returned, []
        numbers = [envelope.seq_no or 0 for _, envelope in returned]
        words = self._page.words
        words[_HANDLED] += len(returned)  # first, as in `_say_failed`
        try:
            yield from writer.store(self.held.lease_id, ranges_of(numbers))
        except StaleLease:
            self._uncount(len(returned))
            self.held.make_stale()
        except EventLogError as error:
            self._uncount(len(returned))
            self._refused(returned, error)
        else:
            if not self._is_over:
                for row, _ in returned:
                    self._page.states[row] = DONE
            if not writer.acknowledges:
                self._done += numbers

    def _uncount(self, handled: int) -> None:
        """These were not handled after all; a writer may have wiped the page since they counted."""
        words = self._page.words
        words[_HANDLED] = max(words[_HANDLED] - handled, 0)

    def _refused(self, returned: list[tuple[int, EventEnvelope]], error: EventLogError) -> None:
        """The output has refused the results of these events: their deliveries have failed."""
        for _, envelope in returned:
            attempt = self._attempt_of(envelope.seq_no or 0)
            self._failed(envelope, self.member.on_refused(envelope, attempt, error))

    # --- the end -----------------------------------------------------------------------------

    def give_back(self) -> None:
        self.settle()
        with self._pipe.changed:
            self._release(self._not_begun())
            self.held.todo.clear()
        lost, self._lost = self._lost, []
        if lost:
            logger.warning(
                "retention of the log %s deleted %s events (%d to %d) that a member of the group %s"
                " had not begun",
                *(self.member.path, f"{len(lost):,}", lost[0], lost[-1], self.member.group),
            )

    def end(self) -> None:
        """Another lease takes this one's place in the member's page."""
        if not self._is_over:
            self.give_back()
            self._leave_usual_way()
            self._is_over, self._current = True, None

    def _not_begun(self) -> set[int]:
        """Events that nothing was said of yet, whether or not they came out."""
        held = self.held
        if held.is_stale or self._is_over or self._membership.page is None:
            return set()
        states = bytes(self._membership.page.states[: held.count])
        if NOT_STARTED not in states:
            return set()
        pairs = zip(held.numbers, states, strict=True)
        return {n for n, state in pairs if state == NOT_STARTED} - held.gone

    def _release(self, numbers: set[int]) -> None:
        """Give these events back; the caller holds the pipe's lock."""
        if not numbers:
            return
        held = self.held
        self._leave_usual_way()
        held.gone |= numbers
        todo = [entry for entry in held.todo if entry[1] not in numbers]
        held.todo.clear()
        held.todo.extend(todo)
        self._pipe.say_of(held, Release, held.lease_id, tuple(ranges_of(numbers)))
