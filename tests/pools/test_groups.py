"""Groups without a pool: what their calls refuse, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import eventlog
from eventlog import EventLogError, SeekPosition, blocking
from eventlog.errors import InvalidArgument, InvalidArgumentType
from tests.pools.handlers import itself
from tests.pools.parts import WAIT_S, within
from workers import Pool

NO_NUMBERS: list[tuple[Any, type[EventLogError]]] = [
    ("x", InvalidArgumentType),
    (1.5, InvalidArgumentType),
    (True, InvalidArgumentType),
    (-1, InvalidArgument),
    (2**70, InvalidArgument),
]
CALLS: dict[str, Callable[[Any, Any, Any], object]] = {
    # The writer dropped who asked so, who asked again, for ever; or the member's thread died.
    "wait_drained": lambda _log, group, bad: group.wait_drained(bad),
    "join": lambda _log, group, bad: group.open_member(bad),
    "lease": lambda _log, group, bad: leased(group, bad),
    "lease at least": lambda _log, group, bad: leased(group, 1, bad),
    "retry_dead": lambda log, _group, bad: log.retry_dead("g", [bad]),
    "drop_dead": lambda log, _group, bad: log.drop_dead("g", [bad]),
}


def leased(group: blocking.Group, *numbers: Any) -> object:
    with group.open_member() as member:
        return member.lease(*numbers)


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_number_is_refused(tmp_path: Path, call: str) -> None:
    with blocking.open(tmp_path / "log") as log, log.group("g") as group:
        log.append("event")
        for bad, kind in NO_NUMBERS:
            with pytest.raises(kind):
                CALLS[call](log, group, bad)


@pytest.mark.parametrize("name", ["retry_dead", "drop_dead"])
def test_dead_letters_are_named_by_a_list(tmp_path: Path, name: str) -> None:
    with (
        blocking.open(tmp_path / "log") as log,
        log.group("g"),
        pytest.raises(InvalidArgumentType, match="give a list"),
    ):
        getattr(log, name)("g", 5)


def test_a_task_that_waits_for_no_number_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with eventlog.open(tmp_path / "log") as log, log.group("g") as group:
            for bad, kind in NO_NUMBERS:
                with pytest.raises(kind):
                    await group.wait_drained(bad)

    trio.run(main)


def test_the_limit_of_deliveries_is_named(tmp_path: Path) -> None:
    with (
        blocking.open(tmp_path / "log") as log,
        pytest.raises(InvalidArgument, match="give 1 to 1000000"),
        log.group("g", max_deliveries=2_000_000),
    ):
        pass


def test_what_a_member_did_that_has_left_is_known_to_who_asks_first_then(
    log: blocking.EventLog,
) -> None:
    """A pool that was late to hear of a worker lost the count of what that one had handled."""
    log.append(1)
    with log.group("g") as group, log.group("g") as other:
        with group.open_member() as member:
            lease = member.lease()
            assert lease is not None
            for _, envelope in lease:
                assert lease.begin(envelope)
                lease.done(envelope)
            member.flush()
        report = other.member(member.member_id)
        assert report is not None
        assert (report.handled, report.in_flight) == (1, 0)
        assert other.members() == []
        assert other.member(member.member_id + 1) is None


def test_a_member_in_an_event_loop_shares_a_group_with_the_processes_of_a_pool(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with eventlog.open(tmp_path / "log") as log, log.member("g") as member:
            await log.append_many(range(40))
            lease = await member.lease(10, 10)
            assert lease is not None
            begun = [one for _, one in lease if lease.begin(one)]
            async with Pool(log, group="g", handler=itself, processes=1, output=log.path) as pool:
                async with log.follow(SeekPosition.sequence(41)) as results:
                    by_pool = [(await anext(results)).event for _ in range(30)]
                assert sorted([*by_pool, *(one.event for one in begun)]) == list(range(40))
                for envelope in begun:
                    lease.done(envelope)
                await member.flush()
                await pool.drained()
                assert (pool.stats().handled, pool.stats().failed) == (30, 0)
            [group] = await log.groups()
            assert (group.lag, group.redeliveries, group.dead_letters) == (0, 0, 0)
            assert await log.last_seq_no() == 70, "what the member has done gave no results"

    within(WAIT_S, partial(trio.run, main))
