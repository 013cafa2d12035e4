"""A group of a log: what members say, as changes of its document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from eventlog.api.group import (
    DeadLetter,
    Exhausted,
    ExitReport,
    Failure,
    GroupReport,
    MemberReport,
)
from eventlog.api.refusals import group_mismatch, lost_letter, no_group
from eventlog.config import GroupOrdering
from eventlog.jetstream.document import Document, Draft
from eventlog.jetstream.handing_out import HandedOut, HandingOut
from eventlog.jetstream.letters import Letters
from eventlog.jetstream.parts import LogParts
from eventlog.jetstream.records import Records
from eventlog.jetstream.results import Results
from eventlog.jetstream.state import Consumer
from eventlog.jetstream.times import SECOND_NS
from eventlog.jetstream.watch import Watch
from eventlog.remote.driver import Delivery, Done, Failed, GivenUp, Outcome
from eventlog.remote.group_state import Options, Seat

T = TypeVar("T")

HEARD_PART: Final = 0.75
"""A member's time is noted anew once less than this part of it is left: not by every call, for each
note wakes all that wait."""


class JetStreamGroup:
    """One handle of one group; see `remote.driver.GroupDriver`."""

    def __init__(self, parts: LogParts, document: Document, name: str) -> None:
        link, events, bucket = parts.link, parts.events, parts.bucket
        self._name = name
        self._link = link
        self._path = events.path
        self._lease_ns = int(parts.lease_s * SECOND_NS)
        self._document = document
        self._records = Records(events, parts.log_id, name)
        self._letters = Letters(bucket, name)
        self._watch = Watch(events, bucket, document)
        self._handing = HandingOut(
            events, self._records, self._letters, self._watch, bucket.value_bytes_max
        )
        self._results = Results(parts, document, self._letters, name)
        self._known: dict[int, set[int]] = defaultdict(set)
        """What each member of this handle knows that it has."""

    async def aclose(self) -> None:
        """Give everything back."""
        await self._watch.aclose()

    async def _change(
        self,
        make: Callable[[Draft, Consumer], Awaitable[T]],
        heard_of: Sequence[int] = (),
        *,
        may_be_old: bool = False,
    ) -> T:
        """Change the document of the group that is there; members that are dead end before."""

        async def make_of_group(draft: Draft) -> T:
            consumer = draft.consumer
            if consumer is None or consumer.options is None:
                raise no_group(self._name, self._path)
            now_ns = self._link.now_ns()
            for member_id in consumer.members.keys() & set(heard_of):
                seat = consumer.members[member_id]
                if seat.until_ns - now_ns < self._lease_ns * HEARD_PART:
                    seat.until_ns = now_ns + self._lease_ns
            consumer.end_dead(now_ns)
            return await make(draft, consumer)

        return await self._document.change(make_of_group, may_be_old=may_be_old)

    async def open(self, options: Options, position: int) -> None:
        """Make the group, from after `position`, or find it."""

        async def make(draft: Draft) -> None:
            consumer = draft.consumer = draft.consumer or Consumer(position)
            known, consumer.options = consumer.options, options
            if known in (None, options):
                return
            consumer.end_dead(self._link.now_ns())
            if consumer.members:
                raise group_mismatch(self._name, self._path, known.ordering, known.max_deliveries)
            await self._order(consumer, options.ordering)

        await self._document.change(make)

    async def _order(self, consumer: Consumer, ordering: GroupOrdering) -> None:
        """Note the keys that are busy, or forget them."""
        consumer.keys = {}
        if ordering is not None:
            busy = sorted({*consumer.waiting, *consumer.exhausted, *consumer.storing})
            for seq_no, stored in (await self._records.get(busy))[0].items():
                key = self._records.key_of(stored)
                if key is not None:
                    consumer.keys[seq_no] = key

    # --- members -----------------------------------------------------------------------------

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        """Add a member."""

        async def make(_draft: Draft, consumer: Consumer) -> None:
            until_ns = self._link.now_ns() + self._lease_ns
            seat = consumer.members.setdefault(member_id, Seat(owner, pid, until_ns))
            seat.until_ns = until_ns

        await self._change(make)

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        """Wait for events for the member: at least one."""
        known = self._known[member_id]

        async def make(draft: Draft, consumer: Consumer) -> HandedOut:
            if member_id not in consumer.members:
                raise GivenUp
            consumer.resume(self._link.now_ns())
            return await self._handing.hand_out(draft, consumer, member_id, known, count, least)

        while True:
            found = await self._change(make, [member_id], may_be_old=True)
            if found.deliveries:
                known.update(one.event.seq_no for one in found.deliveries)
                return found.deliveries
            for seq_no, storing in found.orphans.items():
                await self._results.complete(seq_no, storing)
            if not found.orphans:
                await self._watch.wait(found.revision, found.last, self._within_s(found.due_ns))

    def _within_s(self, due_ns: int | None) -> float | None:
        return None if due_ns is None else max((due_ns - self._link.now_ns()) / SECOND_NS, 0.0)

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        """Say what became of deliveries; the numbers that were somebody else's by then."""
        known = self._known[member_id]
        [outcome, *others] = outcomes
        if isinstance(outcome, Done) and outcome.results and not others:
            after = max(self._watch.last, outcome.seq_no)
            is_ours = await self._results.settle(member_id, outcome, after)
            stale = set() if is_ours else {outcome.seq_no}
        else:
            stale = await self._settle(member_id, outcomes)
        known -= {one.seq_no for one in outcomes}
        return stale

    async def _settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        async def make(draft: Draft, consumer: Consumer) -> set[int]:
            seat = consumer.members.get(member_id)
            if seat is None:
                return {one.seq_no for one in outcomes}
            stale: set[int] = set()
            said: list[int] = []
            for one in outcomes:
                if one.seq_no in seat.has:
                    await self._end(draft, consumer, member_id, one)
                    said.append(one.seq_no)
                elif one.seq_no not in seat.said:
                    stale.add(one.seq_no)
            seat.said = said or seat.said
            return stale

        return await self._change(make, [member_id])

    async def _end(self, draft: Draft, consumer: Consumer, member: int, outcome: Outcome) -> None:
        seat, seq_no = consumer.members[member], outcome.seq_no
        if isinstance(outcome, Done):
            seat.handled += 1
            if seq_no in consumer.retried:  # the retry has succeeded
                consumer.retried.remove(seq_no)
                draft.others.update(self._letters.removed(seq_no))
            consumer.finish(seq_no)
        elif isinstance(outcome, Failed):
            failure = outcome.failure
            deliveries = consumer.attempt_of(seq_no)
            due_ns = self._link.now_ns() + int(failure.delay_s * SECOND_NS)
            if consumer.fail(member, seq_no, due_ns, is_final=failure.is_final):
                await self._bury(draft, consumer, seq_no, deliveries, failure)
        else:
            consumer.give_back(seat, [seq_no])

    async def _bury(
        self,
        draft: Draft,
        consumer: Consumer,
        seq_no: int,
        deliveries: int,
        why: Failure | ExitReport,
    ) -> None:
        """Make the event a dead letter."""
        found, _ = await self._records.get([seq_no])
        event, now_ns = found.get(seq_no), self._link.now_ns()
        if event is None and seq_no in consumer.retried:
            event = await self._letters.copy_of(seq_no)
        draft.others.update(self._letters.written(seq_no, event, deliveries, why, now_ns))
        if seq_no in consumer.retried:
            consumer.retried.remove(seq_no)
        consumer.finish(seq_no)

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        """These members live; those that the group has given up meanwhile."""

        async def make(_draft: Draft, consumer: Consumer) -> set[int]:
            return set(member_ids) - consumer.members.keys()

        return await self._change(make, member_ids)

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        """The member is gone: what it had goes to others at once."""

        async def make(_draft: Draft, consumer: Consumer) -> None:
            consumer.end(member_id, has_failed=has_failed)

        await self._change(make)
        self._known.pop(member_id, None)

    async def members(self) -> list[MemberReport]:
        """See `GroupDriver`."""

        async def make(_draft: Draft, consumer: Consumer) -> list[MemberReport]:
            return consumer.reports()

        return await self._change(make)

    # --- exhausted and drained ---------------------------------------------------------------

    async def exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by ends of this owner's members."""

        async def make(draft: Draft, consumer: Consumer) -> tuple[list[Exhausted], int, int | None]:
            return consumer.exhausted_for(owner), draft.revision, consumer.next_due_ns()

        while True:
            found, revision, due_ns = await self._change(make, may_be_old=True)
            if found:
                return found
            await self._watch.wait(revision, None, self._within_s(due_ns))

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make one a dead letter."""

        async def make(draft: Draft, consumer: Consumer) -> None:
            used = consumer.exhausted.get(exhausted.seq_no)
            if used is not None:
                await self._bury(draft, consumer, exhausted.seq_no, used.deliveries, report)

        await self._change(make)

    async def drained(self, seq_no: int) -> None:
        """Wait until everything up to the number is done, or dead."""
        has_looked = False

        async def make(draft: Draft, consumer: Consumer) -> HandedOut | None:
            nonlocal has_looked
            if not (has_looked and consumer.members):  # members see what retention has deleted
                await self._handing.look(consumer)
                has_looked = True
            if consumer.is_drained(seq_no):
                return None
            orphans = consumer.orphans()
            return HandedOut([], draft.revision, 0, consumer.next_due_ns(), orphans)

        while (found := await self._change(make, may_be_old=True)) is not None:
            for number, storing in found.orphans.items():
                await self._results.complete(number, storing)
            if not found.orphans:
                await self._watch.wait(found.revision, None, self._within_s(found.due_ns))

    # --- dead letters ------------------------------------------------------------------------

    async def dead_letters(self) -> list[DeadLetter]:
        """Those that nobody retries, in the order in which they died."""

        async def make(draft: Draft) -> list[DeadLetter]:
            retried = draft.consumer.retried if draft.consumer else ()
            return [one for one in await self._letters.all() if one.seq_no not in retried]

        return await self._document.change(make)

    async def retry_dead(self, seq_nos: Sequence[int]) -> int:
        """Hand them out again; how many of the numbers were some."""

        async def make(_draft: Draft, consumer: Consumer) -> int:
            found = sorted(set(seq_nos) & set(await self._letters.numbers()))
            stored, _ = await self._records.get(found)
            for seq_no in found:
                if seq_no not in stored and await self._letters.copy_of(seq_no) is None:
                    raise lost_letter(seq_no, self._name, self._path)
            return consumer.retry(found)

        return await self._change(make)

    async def drop_dead(self, seq_nos: Sequence[int]) -> int:
        """Forget them; how many of the numbers were some."""

        async def make(draft: Draft) -> int:
            retried = set(draft.consumer.retried) if draft.consumer else set()
            found = (set(seq_nos) & set(await self._letters.numbers())) - retried
            for seq_no in found:
                draft.others.update(self._letters.removed(seq_no))
            return len(found)

        return await self._document.change(make)

    def report(self, consumer: Consumer, last: int, dead: int) -> GroupReport | None:
        """The group; `None` if there is only a consumer of its name."""
        if consumer.options is None:
            return None
        consumer.end_dead(self._link.now_ns())
        letters = dead - len(consumer.retried)
        return consumer.report(self._name, consumer.options, last, letters)
