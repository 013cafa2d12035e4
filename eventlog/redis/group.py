"""A group on a Redis or Valkey server: what members say, as calls of scripts (lua/groups.lua)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio
import msgpack

from eventlog.api.group import DeadLetter, Exhausted, ExitReport, GroupReport, MemberReport
from eventlog.api.refusals import lost_letter, no_group
from eventlog.event.moments import datetime_of
from eventlog.remote.driver import Delivery, Done, Failed, GivenUp, Outcome, Stored

if TYPE_CHECKING:
    from eventlog.redis.driver import RedisDriver


class RedisGroup:
    """One handle of one group."""

    def __init__(self, driver: RedisDriver, name: str) -> None:
        self._driver = driver
        self._name = name
        self._lease_us = int(driver.lease_s * 1e6)
        self._attempts: dict[tuple[int, int], int] = {}
        """Which attempt it is, of what members have, by member and number."""

    async def _run(self, script: str, *arguments: Any) -> list[Any]:
        keys = self._driver.group_keys(self._name)
        answer = await self._driver.run(script, keys, self._name, *arguments)
        if answer[0] == "NOGROUP":
            raise no_group(self._name, self._driver.path)
        return answer

    # --- members -----------------------------------------------------------------------------

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        """Add a member."""
        await self._run("join", member_id, owner, pid, self._lease_us)

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        """Wait for events for the member: at least one."""
        while True:
            changed = await self._driver.link.listen()
            known = [number for member, number in self._attempts if member == member_id]
            word, *rest = await self._run("take", member_id, self._lease_us, count, least, *known)
            if word == "NOMEMBER":
                raise GivenUp
            if word == "OK":
                deliveries = [_delivery(*four) for four in _chunks(rest, 4)]
                for one in deliveries:
                    self._attempts[member_id, one.event.seq_no] = one.attempt
                return deliveries
            if word == "WAIT":
                await _wait(changed, rest[0])

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        """Say what became of deliveries; the numbers that were somebody else's by then."""
        said = _said(outcomes, [self._attempts.get((member_id, one.seq_no), 0) for one in outcomes])
        answer = await self._run("settle", member_id, self._lease_us, *said)
        for outcome in outcomes:
            self._attempts.pop((member_id, outcome.seq_no), None)
        return set(map(int, answer[1:]))

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        """These members live; those that the group has given up meanwhile."""
        answer = await self._run("keep", self._lease_us, *member_ids)
        return set(map(int, answer[1:]))

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        """The member is gone: what it had goes to others at once."""
        await self._run("end", member_id, int(has_failed))
        self._attempts = {key: one for key, one in self._attempts.items() if key[0] != member_id}

    async def members(self) -> list[MemberReport]:
        """See `GroupDriver`."""
        answer = await self._run("members")
        return [_member(*three) for three in _chunks(answer[1:], 3)]

    # --- exhausted and drained ---------------------------------------------------------------

    async def exhausted(self, owner: int) -> list[Exhausted]:
        """Wait for events that used up their deliveries by ends of this owner's members."""
        while True:
            changed = await self._driver.link.listen()
            _, due_us, *rest = await self._run("exhausted", owner)
            if rest:
                return [_exhausted(*four) for four in _chunks(rest, 4)]
            await _wait(changed, due_us)

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        """Make one a dead letter."""
        await self._run("reject", exhausted.seq_no, json.dumps(asdict(report)))

    async def drained(self, seq_no: int) -> None:
        """Wait until everything up to the number is done, or dead."""
        while True:
            changed = await self._driver.link.listen()
            if (await self._run("drained", seq_no))[1]:
                return
            await changed.wait()

    # --- reports and dead letters ------------------------------------------------------------

    async def reports(self) -> list[GroupReport]:
        """One, or none if the group was forgotten meanwhile."""
        keys = self._driver.group_keys(self._name)
        answer = await self._driver.run("report", keys, self._name)
        if answer[0] == "NOGROUP":
            return []
        ordering, *numbers = answer[1:]
        limit, position, lag, in_flight, members, redeliveries, dead = map(int, numbers)
        return [
            GroupReport(
                name=self._name,
                ordering=ordering.decode() or None,
                max_deliveries=limit,
                position=position,
                lag=lag,
                in_flight=in_flight,
                members=members,
                redeliveries=redeliveries,
                dead_letters=dead,
            )
        ]

    async def dead_letters(self) -> list[DeadLetter]:
        """Those that nobody retries, in the order in which they died."""
        answer = await self._run("letters")
        return [self._letter(int(number), packed) for number, packed in _chunks(answer[1:], 2)]

    def _letter(self, seq_no: int, packed: bytes) -> DeadLetter:
        from eventlog.remote.record import envelope_of

        report, deliveries, died_us, record, stored_us = msgpack.unpackb(packed, raw=True)
        stored = Stored(seq_no, int(stored_us) * 1000, record)
        found = envelope_of(stored, self._driver.path) if record else None
        return DeadLetter(
            event=None if found is None else found.event,
            key=None if found is None else found.key,
            headers=None if found is None else found.headers,
            seq_no=seq_no,
            deliveries=deliveries,
            group=self._name,
            failed_at=datetime_of(int(died_us) * 1000),
            **_report(report),
        )

    async def retry_dead(self, seq_nos: Sequence[int]) -> int:
        """Hand them out again; how many of the numbers were some."""
        answer = await self._run("retry_dead", *seq_nos)
        if answer[0] == "LOST":
            raise lost_letter(int(answer[1]), self._name, self._driver.path)
        return int(answer[1])

    async def drop_dead(self, seq_nos: Sequence[int]) -> int:
        """Forget them; how many of the numbers were some."""
        return int((await self._run("drop_dead", *seq_nos))[1])


async def _wait(changed: anyio.Event, due_us: int) -> None:
    """Wait for a change, or until something is due by itself."""
    if due_us < 0:
        await changed.wait()
        return
    with anyio.move_on_after(due_us / 1e6 + 0.001):
        await changed.wait()


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _delivery(number: bytes, attempt: int, time_us: bytes, record: bytes) -> Delivery:
    return Delivery(Stored(int(number), int(time_us) * 1000, record), attempt)


def _said(outcomes: Sequence[Outcome], attempts: Sequence[int]) -> list[Any]:
    """In the words of the script; events that were done one after another are said together."""
    said: list[Any] = []
    run: list[Any] = []
    behind = 0
    for outcome, attempt in zip(outcomes, attempts, strict=True):
        seq_no = outcome.seq_no
        if not isinstance(outcome, Done) or outcome.results:
            said += [*run, *_said_of(outcome, attempt)]
            run = []
        elif run and seq_no == behind and attempt == run[2]:
            run[3] += 1
        else:
            said += run
            run = ["R", seq_no, attempt, 1]
        behind = seq_no + 1
    return [*said, *run]


def _said_of(outcome: Outcome, attempt: int) -> list[Any]:
    if isinstance(outcome, Done):
        return ["D", outcome.seq_no, attempt, len(outcome.results), *outcome.results]
    if isinstance(outcome, Failed):
        failure = outcome.failure
        report = json.dumps({"error": failure.error, "traceback": failure.traceback})
        delay_us = int(failure.delay_s * 1e6)
        return ["F", outcome.seq_no, attempt, int(failure.is_final), delay_us, report]
    return ["G", outcome.seq_no, attempt]


def _member(member: bytes, seat: bytes, in_flight: int) -> MemberReport:
    owner, pid, handled, failed, retried = map(int, seat.split(b":"))
    return MemberReport(
        member_id=int(member),
        owner=owner,
        pid=pid,
        handled=handled,
        failed=failed,
        retried=retried,
        in_flight=in_flight,
        busy_since_ns=None,  # a clock of another machine says nothing here
    )


def _exhausted(number: bytes, deliveries: bytes, member: bytes, owner: bytes) -> Exhausted:
    return Exhausted(
        seq_no=int(number), deliveries=int(deliveries), member_id=int(member), owner=int(owner)
    )


_Field = Literal["error", "traceback", "exit_code", "peak_rss_bytes", "log_lines"]


def _report(packed: bytes) -> dict[_Field, Any]:
    known: dict[_Field, Any] = {
        "error": "",
        "traceback": None,
        "exit_code": None,
        "peak_rss_bytes": None,
        "log_lines": (),
    }
    known.update(cast("dict[_Field, Any]", json.loads(packed)))
    known["log_lines"] = tuple(known["log_lines"])
    return known
