"""Every crash of a history, and the check that what recovery makes of it keeps the contract."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from eventlog.errors import LogFull
from eventlog.local.storage.files import FILES
from eventlog.local.storage.log.writable import WritableLog
from eventlog.testing import batch_of, open_storage, stored_events
from tests.faults.disk import Disk, Image, PowerCuts
from tests.faults.histories import Trace, booted
from tests.faults.recorder import RecordingFiles, materialise

HEADER_CUTS: Final = 80
"""Torn at each of the first bytes of a write, in which all headers end ..."""
BODY_CUTS: Final = 3
"""... and at so many places of what follows."""
WORD: Final = 8


class Crash(NamedTuple):
    """A moment, and what is found there."""

    calls: int
    """Made whole before it."""
    how: str
    image: Image
    is_power_cut: bool = False
    cut: int = 0
    """Bytes that the next call had written."""

    def __str__(self) -> str:
        return f"after call {self.calls}: {self.how}"


def kills(trace: Trace, rng: random.Random, header_cuts: int = HEADER_CUTS) -> Iterator[Crash]:
    """The process is killed before each call, within each that can be torn, and after the last."""
    disk = trace.start.copy()
    yield Crash(0, "killed", disk.image())
    for number, call in enumerate(trace.calls):
        if call.kind == "write" or (call.kind == "store" and len(call.data) > WORD):
            for cut in torn_at(len(call.data), header_cuts, rng):
                torn = disk.copy()
                torn.apply(call._replace(data=call.data[:cut]))
                yield Crash(number, f"killed after {cut} bytes of {call}", torn.image(), cut=cut)
        disk.apply(call)
        yield Crash(number + 1, f"killed after {call}", disk.image())


def disk_after(trace: Trace, crash: Crash) -> Disk:
    """What the kernel and the disk have when a process was killed there."""
    disk = trace.start.copy()
    for call in trace.calls[: crash.calls]:
        disk.apply(call)
    if crash.cut:
        torn = trace.calls[crash.calls]
        disk.apply(torn._replace(data=torn.data[: crash.cut]))
    return disk


def torn_at(size: int, header_cuts: int, rng: random.Random) -> list[int]:
    """After how many bytes a write of that size is torn: more than none, fewer than all."""
    body = range(header_cuts, size)
    chosen = rng.sample(body, min(BODY_CUTS, len(body)))
    return [*range(1, min(header_cuts, size)), *sorted(chosen)]


def power_cuts(trace: Trace, limit: int, rng: random.Random) -> Iterator[Crash]:
    """The power is cut before each call, within each write, and after the last call."""
    disk = trace.start.copy()
    for number, call in enumerate([*trace.calls, None]):
        for how, image in PowerCuts(disk, limit, rng):
            yield Crash(number, f"power cut, {how}", image, is_power_cut=True)
        if call is not None:
            disk.apply(call)


def is_in_memory(options: dict[str, Any]) -> bool:
    """Whether such a log promises nothing for a loss of power."""
    return options.get("durability") == "memory"


class Allowed(NamedTuple):
    """What recovery may find."""

    lasts: set[int]
    firsts: range
    positions: dict[str, set[int | None]]
    events: dict[int, str]


def allowed_after(trace: Trace, crash: Crash) -> Allowed:
    """What the contract allows, from what was acknowledged before the crash."""
    step, before, after = trace.at(crash.calls, is_torn=crash.cut > 0)
    if crash.is_power_cut:
        lasts = {end for end in trace.batch_ends if before.synced <= end <= after.last}
        firsts, window = range(1, after.first + 1), trace.known[before.positions_since : step + 1]
        window = [*window, before, after]
    else:
        lasts, firsts = {before.last, after.last}, range(before.first, after.first + 1)
        window = [before, after]
    names = {name for known in window for name in known.positions}
    positions = {name: {known.positions.get(name) for known in window} for name in names}
    return Allowed(lasts, firsts, positions, trace.events)


def check(directory: str, trace: Trace, crash: Crash, *, is_thorough: bool) -> None:
    """Open what the crash left, and hold it to the contract.

    Thorough is: also repeat what was not answered, append more, be killed or end, and look again.
    """
    materialise(crash.image, directory)
    try:
        with booted("third" if crash.is_power_cut else "first"):
            _check(directory, trace, crash, is_thorough=is_thorough)
    except Exception as error:
        error.add_note(f"seed {trace.seed!r}, {trace.steps}\n{trace.options}\n{crash}")
        raise


def _check(directory: str, trace: Trace, crash: Crash, *, is_thorough: bool) -> None:
    allowed = allowed_after(trace, crash)
    log = open_storage(directory, FILES, lambda: trace.now_ns, **trace.options)
    try:
        last = check_found(log, allowed, crash)
        check_events(directory, allowed, last)
        if not is_thorough:
            return
        added = go_on(log, trace, crash, last)
        if crash.calls % 2:
            log.close()
    finally:
        log.abandon()
    expected = allowed._replace(events={**trace.events, **added})
    log = open_storage(directory, FILES, lambda: trace.now_ns)
    try:
        assert log.last_seq_no == max(added)
        assert log.damages == []
        check_events(directory, expected, log.last_seq_no)
    finally:
        log.abandon()


def check_found(log: WritableLog, allowed: Allowed, crash: Crash) -> int:
    """The last number, the first one, and the positions; the last number."""
    last = log.last_seq_no
    assert last in allowed.lasts, f"the last event is {last}, not one of {allowed.lasts}"
    first = log.control.first_available
    assert first in allowed.firsts, f"the first event is {first}, not in {allowed.firsts}"
    assert first <= last + 1
    assert log.control.synced <= last
    lost = [damage for damage in log.damages if damage.last_seq_no is not None]
    assert lost == [], "events in the middle are lost"
    found = {offset.name: offset.position for offset in log.offsets.all()}
    for name in allowed.positions.keys() | found.keys():
        wanted = allowed.positions.get(name, {None})
        if crash.is_power_cut:
            # A position past the end stays there only if nothing was lost.
            lost_none = last == max(allowed.lasts)
            clamped = {None if one is None else min(one, last) for one in wanted}
            wanted = wanted | clamped if lost_none else clamped
        assert found.get(name) in wanted, f"{name} is at {found.get(name)}, not in {wanted}"
    return last


def check_events(directory: str, allowed: Allowed, last: int) -> None:
    """Every event is the one that was appended, from the first to the last, without a gap."""
    found = stored_events(directory)
    first = min(found, default=last + 1)
    assert list(found) == list(range(first, last + 1))
    for number, event in found.items():
        assert event == allowed.events[number], f"another event {number}"


def go_on(log: WritableLog, trace: Trace, crash: Crash, last: int) -> dict[int, Any]:
    """Repeat the last batches, append one, and acknowledge; what was added, by number."""
    _, before, after = trace.at(crash.calls, is_torn=crash.cut > 0)
    added: dict[int, Any] = {}
    for producer, (base, batch) in {**before.producers, **after.producers}.items():
        known_end = base + len(batch.events) - 1
        got = append(log, batch.packed, batch.producer_id, batch.producer_seq)
        if known_end <= last:
            is_remembered = got == base
            assert is_remembered or crash.is_power_cut, f"batch {base} of {producer} stored twice"
        else:
            is_remembered = False
        if not is_remembered:
            assert got == max(added, default=last) + 1
            added.update(enumerate(batch.events, got))
    number = append(log, batch_of("one more"))
    assert number == max(added, default=last) + 1
    added[number] = "one more"
    log.ack("another", number)
    return added


def append(log: WritableLog, *batch: Any) -> int:
    """Append although consumers keep what retention wants to delete."""
    try:
        return log.append(*batch)
    except LogFull as error:
        if not error.is_by_retention:
            raise
        for offset in log.offsets.all():
            log.offsets.forget(offset.name)
        return log.append(*batch)


def crashes_of_recovery(
    directory: str, trace: Trace, crash: Crash, limit: int, rng: random.Random
) -> Iterator[Crash]:
    """Recovery from a crash, killed or without power in its turn, at each of its calls."""
    materialise(crash.image, directory)
    # After a power cut, what is there is on the disk; after a kill, only what had been synced is.
    disk = Disk.of(crash.image) if crash.is_power_cut else disk_after(trace, crash)
    files = RecordingFiles(disk)
    with booted("second" if crash.is_power_cut else "first"):
        open_storage(directory, files, lambda: trace.now_ns, **trace.options).abandon()
        files.bury()
    inner = trace._replace(start=files.start, calls=files.calls, bounds=[], known=[])
    for killed in kills(inner, rng):
        how = f"{crash.how}, then in its recovery {killed}"
        yield crash._replace(how=how, image=killed.image)
    if is_in_memory(trace.options):
        return
    for cut in power_cuts(inner, limit, rng):
        how = f"{crash.how}, then in its recovery {cut}"
        yield crash._replace(how=how, image=cut.image, is_power_cut=True)
