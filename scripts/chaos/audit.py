"""The log against the records: what was promised, number by number. Pure.

Each check returns its violations as sentences; no violation, no sentence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Stored(NamedTuple):
    """What the log holds at one number."""

    seq_no: int
    producer: str
    """Empty for a result."""
    counter: int
    """The number of the event whose result it is, if it is one."""
    key: str | None
    kind: str = ""
    """What its handler does (see `handlers`)."""


class Letter(NamedTuple):
    """What a dead letter holds."""

    seq_no: int
    producer: str
    """Empty if it holds no event: retention was faster than the death of its worker."""
    counter: int


def numbers(stored: Iterable[Stored], first: int) -> Iterator[str]:
    """Gapless, and each event once."""
    expected = first
    seen: set[tuple[str, int]] = set()
    for one in stored:
        if one.seq_no != expected:
            yield f"event {one.seq_no} comes where {expected} should"
        expected = one.seq_no + 1
        if one.producer and (one.producer, one.counter) in seen:
            yield f"{one.producer}'s event {one.counter} is stored twice, again at {one.seq_no}"
        seen.add((one.producer, one.counter))


def order(stored: Iterable[Stored]) -> Iterator[str]:
    """The events of a producer are in the order in which it made them."""
    last: dict[str, int] = {}
    for one in stored:
        if one.producer and one.counter < last.get(one.producer, 0):
            yield f"{one.producer}'s event {one.counter} comes late, at {one.seq_no}"
        last[one.producer] = one.counter


def acknowledged(
    stored: dict[int, Stored], producer: str, lines: Iterable[list[str]], first: int
) -> Iterator[str]:
    """What a producer was told is stored is there, at that number."""
    for word, counter, seq_no in lines:
        assert word == "acked"
        one = stored.get(int(seq_no))
        if one is None and int(seq_no) < first:
            continue  # retention has deleted it
        if one is None or (one.producer, one.counter) != (producer, int(counter)):
            yield f"{producer}'s event {counter} was acknowledged as {seq_no}; there is {one}"


class Consumer:
    """What all incarnations of a consumer saw, one after the other."""

    def __init__(self, name: str, *, may_skip: bool) -> None:
        self._name = name
        self._may_skip = may_skip
        self._acked = 0
        self._acking = 0
        self.seen = 0

    def check(self, stored: dict[int, Stored], lines: Iterable[list[str]]) -> Iterator[str]:
        """One incarnation, from its beginning to its death."""
        last: int | None = None
        for line in lines:
            match line:
                case ["saw", seq_no, producer, counter]:
                    self.seen += 1
                    yield from self._check_number(int(seq_no), last)
                    last = int(seq_no)
                    one = stored.get(last)
                    is_result = producer == "-"
                    if (
                        one is not None
                        and not is_result
                        and (
                            one.producer,
                            one.counter,
                        )
                        != (producer, int(counter))
                    ):
                        yield f"{self._name} saw {producer} {counter} at {seq_no}; there is {one}"
                case ["acking", seq_no]:
                    self._acking = max(self._acking, int(seq_no))
                case ["acked", seq_no]:
                    self._acked = max(self._acked, int(seq_no))

    def _check_number(self, seq_no: int, last: int | None) -> Iterator[str]:
        if last is not None:
            is_next = seq_no > last if self._may_skip else seq_no == last + 1
            if not is_next:
                yield f"{self._name} saw {seq_no} after {last}"
        elif seq_no <= self._acked:
            yield f"{self._name} began at {seq_no}, but had acknowledged {self._acked}"
        elif seq_no > self._acking + 1 and not self._may_skip:
            yield f"{self._name} began at {seq_no}, but had acknowledged at most {self._acking}"


def handled(
    stored: Iterable[Stored], lines: Iterable[list[str]], dead: set[int], group: str
) -> Iterator[str]:
    """Every event was handled at least once, or is a dead letter."""
    done = {int(line[1]) for line in lines if line[0] == "did"}
    for one in stored:
        if one.producer and one.seq_no not in done and one.seq_no not in dead:
            yield f"event {one.seq_no} was never handled by group {group}"
    for seq_no in dead & done:
        yield f"event {seq_no} is a dead letter of group {group}, but a handler could do it"


def delivered(
    stored: dict[int, Stored], lines: Iterable[list[str]], pid: int, group: str
) -> Iterator[str]:
    """Each delivery was what had been appended, whatever handlers did to an earlier one.

    `lines` are what one worker noted, `pid` is that worker: its forked children handle nothing.
    """
    for line in lines:
        if int(line[4]) != pid:
            yield f"a forked child of worker {pid} of group {group} went on as one: {line}"
        if line[0] == "got":
            one = stored.get(int(line[1]))
            if one is None or (one.producer, one.counter) != (line[2], int(line[3])):
                yield f"group {group} was given {line[2]} {line[3]} at {line[1]}; there is {one}"


def letters(stored: dict[int, Stored], found: Iterable[Letter], group: str) -> Iterator[str]:
    """A letter is of an event that kills its worker, is its only one, and holds what was appended.

    Neighbours of such an event, and what a pool was left with, are none.
    """
    seen: set[int] = set()
    for letter in found:
        one = stored.get(letter.seq_no)
        if letter.seq_no in seen:
            yield f"event {letter.seq_no} has two dead letters of group {group}"
        seen.add(letter.seq_no)
        if one is None or (one.producer, one.counter) != (letter.producer, letter.counter):
            yield f"a dead letter of group {group} is {letter}; there is {one}"
        elif one.kind != "poison":
            yield f"event {letter.seq_no} is a dead letter of group {group}, and killed nobody"


def retried(
    seen: dict[int, Letter],
    left: Iterable[Letter],
    lines: Iterable[list[str]],
    acked: dict[int, tuple[str, int]],
) -> Iterator[str]:
    """Every letter that there ever was held its event, and was handled when its time came.

    `acked` is what producers were told: retention may have deleted the events themselves.
    """
    by_word: dict[str, dict[int, list[str]]] = defaultdict(dict)
    for line in lines:
        by_word[line[0]][int(line[1])] = line
    for number, letter in seen.items():
        known = acked.get(number, letter[1:])
        if known != letter[1:]:
            yield f"dead letter {letter} is of another event: {known} was acknowledged"
        got = by_word["got"].get(number)
        if got is None or (got[2], int(got[3])) != known:
            yield f"dead letter {letter} was retried as {got}"
        elif number not in by_word["did"]:
            yield f"dead letter {letter} was never handled"
    for letter in left:
        yield f"dead letter {letter} is left"


class Follower:
    """What one incarnation of a follower saw of a log that is deleted now and then."""

    def __init__(self, name: str, lines: Iterable[list[str]], ended_ns: int) -> None:
        self._name = name
        self._lines = list(lines)
        self._ended_ns = ended_ns

    def _openings(self) -> Iterator[tuple[int, int, list[list[str]]]]:
        """For each time that it had the log open: when from, when to, and what it saw."""
        opened: int | None = None
        seen: list[list[str]] = []
        for line in self._lines:
            match line:
                case ["opened", at]:
                    opened, seen = int(at), []
                case ["deleted", at] if opened is not None:
                    yield opened, int(at), seen
                    opened = None
                case ["saw", *rest]:
                    seen.append(rest)
        if opened is not None:
            yield opened, self._ended_ns, seen

    def check(self, deleted_ns: Iterable[int], within_ns: int) -> Iterator[str]:
        """It was told of each deletion, and saw one log at a time, from its beginning."""
        for begin, end, seen in self._openings():
            for at in deleted_ns:
                if begin < at < end - within_ns:
                    yield f"{self._name} was not told for {(end - at) // 10**9} s of a deletion"
            numbers = [int(seq_no) for seq_no, _, _ in seen]
            if numbers != list(range(1, len(seen) + 1)):
                yield f"{self._name} saw a log that was made anew as {numbers}"
            if len({producer for _, producer, _ in seen}) > 1:
                yield f"{self._name} saw two logs as one"
        yield from self._check_refusals()

    def _check_refusals(self) -> Iterator[str]:
        """A log that is open is deleted, and nothing else."""
        before = ""
        for word, *rest in self._lines:
            if word == "refused" and before in {"opened", "saw"}:
                yield f"{self._name} was told {rest[0]}, not that its log was deleted"
            before = word


def results(
    stored: Iterable[Stored], dead: set[int], *, may_be_twice: bool = False
) -> Iterator[str]:
    """Every event has one result, or is a dead letter."""
    events: set[int] = set()
    of: Counter[int] = Counter()
    for one in stored:
        if one.producer:
            events.add(one.seq_no)
        else:
            of[one.counter] += 1
    for seq_no in sorted(events - dead):
        if of[seq_no] == 0 or (of[seq_no] > 1 and not may_be_twice):
            yield f"event {seq_no} has {of[seq_no]} results"
    for seq_no in sorted(of.keys() & dead):
        yield f"event {seq_no} is dead, and has a result"


def key_order(lines: Iterable[list[str]], group: str) -> Iterator[str]:
    """Within a key, no event was handled for the first time after a later one."""
    last: dict[str, int] = defaultdict(int)
    done: set[int] = set()
    did = [line for line in lines if line[0] == "did"]
    for _, seq_no, key, *_ in sorted(did, key=lambda line: int(line[3])):
        if key == "-":
            continue  # has no order
        number = int(seq_no)
        if number < last[key] and number not in done:
            yield f"group {group} handled event {number} of key {key} after {last[key]}"
        last[key] = max(last[key], number)
        done.add(number)
