"""Bytes that changed, and files that became shorter: an error, a repair, no wrong event."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from eventlog.errors import CorruptLog, EventLogError, EventsTruncated
from eventlog.local.groups.stored import read_dead_letters, read_groups
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of
from eventlog.tools.verify import verify_log
from tests.faults.disk import Image
from tests.faults.recorder import image_of, materialise
from tests.groups.world import M1, M2, Member
from tests.groups.world import World as GroupsWorld

HEADER_BYTES: Final = 160
FLIPS: Final = (0xFF, 0x01, 0x80)


class Damage(NamedTuple):
    """One file of an image that is not as it was."""

    name: str
    what: str
    content: bytes


def make_image(directory: str, ending: str) -> tuple[Image, dict[int, Any]]:
    """A log with everything in it, and its events."""
    desk = GroupsWorld(directory, segment_bytes=4096)
    for size in (10, 1200, 20, 1500, 30, 40, 1800, 50, 60):
        desk.log.append(batch_of(f"event {size} " + "y" * size, [size]), 7, size)
    desk.log.ack("alpha", 3)
    desk.log.seek("beta", 9)
    desk.open_group(max_deliveries=2)
    one, two = Member(desk, M1), Member(desk, M2)
    one.lease(4)
    numbers = two.lease(3)
    one.results(1, 2)
    two.reject(numbers[0])
    two.nack(numbers[1])
    one.page.states[0] = 1
    desk.append(4)
    desk.end(ending)
    return image_of(directory), events_in(directory)[0]


def damages(image: Image, rng: random.Random, each: float) -> Iterator[Damage]:
    """Every byte of the headers and of what is short, flipped; some of the rest; and cuts.

    Of these, a share of `each`.
    """
    for name, content in sorted(image.items()):
        used = len(content.rstrip(b"\0"))
        places = [*range(min(max(used, 64), 4 * HEADER_BYTES, len(content)))]
        places += rng.sample(range(len(content)), min(60, len(content)))
        for place in places:
            flip = rng.choice(FLIPS)
            if rng.random() < each:
                changed = bytearray(content)
                changed[place] ^= flip
                yield Damage(name, f"byte {place} ^ {flip:#x}", bytes(changed))
        cuts = {*range(0, min(HEADER_BYTES, len(content)), 4), used, len(content) // 2, used - 1}
        for size in sorted(cut for cut in cuts if 0 <= cut < len(content)):
            if rng.random() < each:
                yield Damage(name, f"cut to {size}", content[:size])


def check(directory: str, image: Image, events: dict[int, Any], damage: Damage) -> None:
    """Read it without a writer, and then with one."""
    materialise({**image, damage.name: damage.content}, directory)
    try:
        check_reading(directory, events)
        segments = {name for name in image if name.endswith(".seg")}
        try:
            desk = GroupsWorld(directory)
        except EventLogError:
            return
        try:
            found = check_reading(directory, events)
            is_said = bool(desk.log.damages)
            assert is_said or found is None or found.keys() == events.keys(), "events are gone"
            if damage.name not in segments:
                assert segments <= set(os.listdir(directory)), "segments are gone"
            number = desk.log.append(batch_of("more"))
            check_reading(directory, {**events, number: "more"})
        finally:
            desk.end()
        check_reading(directory, {**events, number: "more"})
    except Exception as error:
        error.add_note(f"{damage.name}: {damage.what}")
        raise


def check_reading(directory: str, events: dict[int, Any]) -> dict[int, Any] | None:
    """Each event that is served is the one that was appended; all else is an error of ours.

    The events, if no error was met.
    """
    try:
        found, errors = events_in(directory)
    except EventLogError:
        return None
    for number, event in found.items():
        assert event == events[number], f"another event {number}"
    for look in (read_groups, read_dead_letters):
        try:
            look(directory)
        except EventLogError:
            continue
    return None if errors else found


def events_in(directory: str) -> tuple[dict[int, Any], list[EventLogError]]:
    """What can be read, going on after what is lost; and what was said of that."""
    log = LogReader(directory)
    try:
        verify_log(log)
        found: dict[int, Any] = {}
        errors: list[EventLogError] = []
        following = 1
        while following <= min(log.last_seq_no, 1000):
            try:
                for envelopes in read_range(log, following, None):
                    for envelope in envelopes:
                        assert envelope.seq_no == following
                        found[following] = envelope.event
                        following += 1
                break
            except EventsTruncated as error:
                errors.append(error)
                following = error.first_available or 0
            except CorruptLog as error:
                errors.append(error)
                following = (error.last_seq_no or following) + 1
        return found, errors
    finally:
        log.close()
