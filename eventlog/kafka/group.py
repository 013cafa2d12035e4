"""A group of a log: what members say, as commands of the journal."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from eventlog.api.group import DeadLetter, Exhausted, ExitReport, Failure, GroupReport, MemberReport
from eventlog.api.refusals import group_mismatch, lost_letter, no_group
from eventlog.errors import EventsTruncated
from eventlog.event.moments import datetime_of
from eventlog.kafka.group_state import NO_GROUP, NO_MEMBER, LetterState
from eventlog.kafka.ledger import Ledger
from eventlog.remote.driver import Delivery, Done, Failed, GivenUp, Outcome, Stored
from eventlog.remote.group_state import Consumer, Options
from eventlog.remote.record import readable

if TYPE_CHECKING:
    from eventlog.kafka.driver import KafkaDriver

T = TypeVar("T")
SECOND_NS: Final = 1_000_000_000
LOOK_MAX: Final = 512
"""With key order: so many events that might be handed out have their keys looked at at once."""


class KafkaGroup:
    """One handle of one group; see `remote.driver.GroupDriver`."""

    def __init__(self, driver: KafkaDriver, name: str, *, has_order: bool, limit: int) -> None:
        self._driver = driver
        self._name = name
        self._has_order = has_order
        self._max_deliveries = limit
        self._lease_ns = int(driver.lease_s * SECOND_NS)
        self._known: dict[int, set[int]] = defaultdict(set)
        """What each member of this handle knows that it has."""
        self._attempts: dict[int, int] = {}
        self._keys: dict[int, str | None] = {}
        self._dead: dict[int, Stored] = {}

    async def _say(self, command: str, *arguments: Any) -> Any:
        answer = await self._driver.journal.say(command, self._name, *arguments)
        if answer == NO_GROUP:
            raise no_group(self._name, self._driver.path)
        return answer

    def _consumer(self, ledger: Ledger) -> Consumer:
        group = ledger.groups.groups.get(self._name)
        if group is None:
            raise no_group(self._name, self._driver.path)
        return group

    async def _see(self, look: Callable[[Consumer], T]) -> T:
        """What `look` sees of the group, as this handle knows it now."""
        return await self._driver.journal.wait_for(lambda ledger: (look(self._consumer(ledger)),))

    # --- members -----------------------------------------------------------------------------

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        """Add a member."""
        await self._say("join", member_id, owner, pid, self._lease_ns)

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        """These members live; those that the group has given up meanwhile."""
        return set(await self._say("keep", list(member_ids), self._lease_ns))

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        """The member is gone: what it had goes to others at once."""
        self._known.pop(member_id, None)
        await self._driver.journal.say("end", self._name, member_id, has_failed)

    async def members(self) -> list[MemberReport]:
        """See `GroupDriver`."""
        await self._say("look")
        return await self._see(lambda group: group.reports())

    # --- events ------------------------------------------------------------------------------

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        """Wait for events for the member: at least one."""
        known = self._known[member_id]
        while True:
            changed = await self._driver.journal.changed()
            has = await self._see(lambda group: _of(group, member_id))
            known &= has
            last, candidates = await self._candidates()
            if candidates or has - known:
                deliveries = await self._take(member_id, count, least, candidates)
                if deliveries:
                    return deliveries
            else:
                await self._wait(changed, last)

    async def _candidates(self) -> tuple[int, dict[int, str | None]]:
        """What may be handed out up to which event, as this handle knows the group.

        With order, all that it has looked at, with the digests of keys, if any of them may be.
        """
        wanted = LOOK_MAX if self._has_order else 1
        watch = self._driver.watch
        last = watch.last
        free = await self._see(lambda group: _first(group, wanted, last))
        if not free:
            state = await self._driver.bounds()
            last = state.last
            watch.note_last(last)
            if await self._see(lambda group: group.position + 1) < state.first:
                await self._say("deleted", state.first)
            free = await self._see(lambda group: _first(group, wanted, last))
        if not self._has_order:
            return last, dict.fromkeys(free)
        await self._read_keys([n for n in free if n not in self._keys])
        busy = await self._see(lambda group: set(group.keys.values()))
        looked_at = {n: self._keys[n] for n in free}
        is_any = any(key is None or key not in busy for key in looked_at.values())
        return last, looked_at if is_any else {}

    async def _take(
        self, member_id: int, count: int, least: int, candidates: dict[int, str | None]
    ) -> list[Delivery]:
        known = self._known[member_id]
        keys = candidates if self._has_order else None
        last = max(candidates, default=0) if self._has_order else self._driver.watch.last
        answer = await self._say(
            "take", member_id, self._lease_ns, sorted(known), [count, least, last, keys]
        )
        if answer == NO_MEMBER:
            raise GivenUp
        attempts = {int(n): int(attempt) for n, attempt in answer}
        events = await self._events(list(attempts))
        gone = [n for n in attempts if n not in events]
        if gone:  # retention has deleted it, so nobody can be given it
            await self._say("settle", member_id, self._lease_ns, [["done", n, 0, 0] for n in gone])
        known.update(events)
        self._attempts.update(attempts)
        return [Delivery(events[n], attempts[n]) for n in attempts if n in events]

    async def _events(self, seq_nos: Sequence[int]) -> dict[int, Stored]:
        """The events as the log has them, or as their dead letters do."""
        found: dict[int, Stored] = {}
        wanted = sorted(seq_nos)
        for at, seq_no in enumerate(wanted):
            if seq_no in found:
                continue
            run = _run_from(wanted, at)
            try:
                for stored in await self._driver.read(seq_no, run):
                    found[stored.seq_no] = stored
            except EventsTruncated:
                copy = await self._copy_of(seq_no)
                if copy is not None:
                    found[seq_no] = copy
            else:
                while seq_no + run - 1 not in found:  # more than one answer holds
                    after = max(n for n in found if n < seq_no + run) + 1
                    for stored in await self._driver.read(after, seq_no + run - after):
                        found[stored.seq_no] = stored
        return {n: found[n] for n in seq_nos if n in found}

    async def _copy_of(self, seq_no: int) -> Stored | None:
        def look(ledger: Ledger) -> tuple[Stored | None]:
            letter = ledger.groups.letters.get(self._name, {}).get(seq_no)
            if letter is None or letter.record is None:
                return (None,)
            return (Stored(seq_no, letter.stored_ns, letter.record),)

        return await self._driver.journal.wait_for(look)

    async def _read_keys(self, seq_nos: Sequence[int]) -> None:
        if len(self._keys) > 64 * LOOK_MAX:
            self._keys.clear()
        found = await self._events(seq_nos)
        for seq_no in seq_nos:
            stored = found.get(seq_no)
            self._keys[seq_no] = None if stored is None else _digest_of(stored, self._driver.path)

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        """Say what became of deliveries; the numbers that were somebody else's by then."""
        said = [await self._said(member_id, outcome) for outcome in outcomes]
        said_known = [one for one in said if one is not None]
        stale = {outcome.seq_no for outcome, one in zip(outcomes, said, strict=True) if one is None}
        if said_known:
            stale |= set(await self._say("settle", member_id, self._lease_ns, said_known))
        self._known[member_id] -= {outcome.seq_no for outcome in outcomes}
        return stale

    async def _said(self, member_id: int, outcome: Outcome) -> list[Any] | None:
        """An outcome as an argument; `None` if its event is somebody else's."""
        seq_no = outcome.seq_no
        if isinstance(outcome, Done):
            if not outcome.results:
                return ["done", seq_no, 0, 0]
            has = await self._see(lambda group: _of(group, member_id))
            if seq_no not in has:
                return None
            attempt = self._attempts.get(seq_no, 0)
            producer_id = _number_of(f"{self._name} {member_id} {seq_no} {attempt}")
            first = await self._driver.append(producer_id, 1, outcome.results)
            return ["done", seq_no, first, len(outcome.results)]
        if isinstance(outcome, Failed):
            return await self._failed(seq_no, outcome.failure)
        return ["back", seq_no]

    async def _failed(self, seq_no: int, failure: Failure) -> list[Any]:
        report = json.dumps({"error": failure.error, "traceback": failure.traceback}).encode()
        stored = None
        if failure.is_final or self._attempts.get(seq_no, 1) >= self._max_deliveries:
            stored = (await self._events([seq_no])).get(seq_no)
        delay_ns = int(failure.delay_s * SECOND_NS)
        return ["failed", seq_no, delay_ns, failure.is_final, report, *_copied(stored)]

    # --- waits -------------------------------------------------------------------------------

    async def _wait(self, changed: anyio.Event, last: int) -> None:
        """Wait for a change of the group, an event after `last`, or what is due by itself."""
        self._driver.watch.call_when_beyond(last, changed.set)
        due_s = await self._due_s()
        with anyio.move_on_after(due_s) as waiting:
            await changed.wait()
        if waiting.cancelled_caught:
            await self._say("look")

    async def _due_s(self) -> float | None:
        """How long until an event may be tried again, or a member is dead."""
        journal = self._driver.journal
        due_ns = await self._see(lambda group: group.next_due_ns())
        return None if due_ns is None else max(journal.seconds_until(due_ns), 0.001)

    async def _until(self, look: Callable[[Consumer], T | None]) -> T:
        while True:
            changed = await self._driver.journal.changed()
            found = await self._see(look)
            if found:
                return found
            due_s = await self._due_s()
            with anyio.move_on_after(due_s) as waiting:
                await changed.wait()
            if waiting.cancelled_caught:
                await self._say("look")

    async def exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by ends of this owner's members."""
        return await self._until(lambda group: group.exhausted_for(owner))

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make one a dead letter."""
        stored = (await self._events([exhausted.seq_no])).get(exhausted.seq_no)
        packed = json.dumps(asdict(report)).encode()
        await self._say("reject", exhausted.seq_no, packed, *_copied(stored))

    async def drained(self, seq_no: int) -> None:
        """Wait until everything up to the number is done, or dead."""
        first = (await self._driver.bounds()).first
        if await self._see(lambda group: group.position + 1) < first:
            await self._say("deleted", first)
        await self._until(lambda group: group.is_drained(seq_no) or None)


# --- what is asked of groups through the log -------------------------------------------------


async def open_group(
    driver: KafkaDriver, name: str, ordering: Any, max_deliveries: int, position: int
) -> KafkaGroup:
    """Make the group, from after `position`, or find it.

    Raises:
        GroupMismatch: it has members that work with other options.
    """
    known = await driver.journal.say("group", name, ordering, max_deliveries, position)
    if known is not None:
        raise group_mismatch(name, driver.path, *known)
    return KafkaGroup(driver, name, has_order=ordering == "key", limit=max_deliveries)


def reports(ledger: Ledger, last: int) -> list[GroupReport]:
    """All groups, by name."""
    state = ledger.groups
    return [
        group.report(name, group.options or Options(None, 1), last, len(state.listed(name)))
        for name, group in sorted(state.groups.items())
    ]


def dead_letters(ledger: Ledger, name: str, path: str) -> list[DeadLetter]:
    """Those of a group that nobody retries, in the order in which they died."""
    return [_letter(name, n, one, path) for n, one in ledger.groups.listed(name).items()]


def _letter(name: str, seq_no: int, letter: LetterState, path: str) -> DeadLetter:
    stored = Stored(seq_no, letter.stored_ns, letter.record or b"")
    found = None if letter.record is None else readable(stored, path)
    report = {"traceback": None, "exit_code": None, "peak_rss_bytes": None, "log_lines": ()}
    report |= json.loads(letter.report)
    return DeadLetter(
        event=None if found is None else found.event,
        key=None if found is None else found.key,
        headers=None if found is None else found.headers,
        seq_no=seq_no,
        deliveries=letter.deliveries,
        group=name,
        failed_at=datetime_of(letter.died_ns),
        error=str(report["error"]),
        traceback=_text(report["traceback"]),
        exit_code=_number(report["exit_code"]),
        peak_rss_bytes=_number(report["peak_rss_bytes"]),
        log_lines=tuple(report["log_lines"]),  # type: ignore[arg-type]
    )


async def retry_dead(driver: KafkaDriver, name: str, seq_nos: Sequence[int]) -> int:
    """Hand dead letters out again; how many of the numbers were some."""
    first = (await driver.bounds()).first
    listed = await driver.journal.current(lambda ledger: dict(ledger.groups.listed(name)))
    for seq_no in seq_nos:
        if seq_no in listed and seq_no < first and listed[seq_no].record is None:
            raise lost_letter(seq_no, name, driver.path)
    answer = await driver.journal.say("retry", name, list(seq_nos))
    if answer == NO_GROUP:
        raise no_group(name, driver.path)
    return int(answer)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _of(group: Consumer, member_id: int) -> set[int]:
    seat = group.members.get(member_id)
    return set() if seat is None else set(seat.has)


def _first(group: Consumer, count: int, last: int) -> list[int]:
    return [n for n, _ in zip(group.free(last), range(count), strict=False)]


def _run_from(numbers: Sequence[int], at: int) -> int:
    """How many numbers follow each other from that place on."""
    length = 1
    while at + length < len(numbers) and numbers[at + length] == numbers[at] + length:
        length += 1
    return length


def _copied(stored: Stored | None) -> tuple[bytes | None, int]:
    return (None, 0) if stored is None else (bytes(stored.record), stored.stored_ns)


def _digest_of(stored: Stored, path: str) -> str | None:
    found = readable(stored, path)
    if found is None or found.key is None:
        return None
    return hashlib.blake2b(found.key.encode(), digest_size=8).hexdigest()


def _number_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") | 1
