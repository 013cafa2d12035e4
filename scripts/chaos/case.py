"""What is audited: the logs, the records of all roles, and what was seen meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chaos import audit
from chaos.audit import Consumer, Follower, Letter, Stored
from chaos.records import lines_of
from eventlog import CorruptLog, DeadLetter, blocking
from eventlog.local.groups.stored import read_dead_letters

LETTERS: Final = "letters"
"""The log with short retention whose dead letters are retried."""
REJECTS: Final = "rejects"
"""The group of that log."""
GROUPS: Final = ("free", "keyed")
"""The groups of the log that is kept for ever."""
NOTICED_NS: Final = 15 * 10**9
"""So long a follower may take on a loaded machine until it says that its log was deleted."""


@dataclass(frozen=True)
class Role:
    """A process that is kept running; `arguments` end with what the incarnation's record is."""

    name: str
    kind: str
    log: str
    arguments: Callable[[str], tuple[str, ...]]


@dataclass
class Case:
    """One soak after its end; each `audit_` gives the violations."""

    records: Path
    path: Callable[[str], str]
    roles: Sequence[Role]
    letters: dict[int, Letter]
    """Every letter that there ever was in `REJECTS`."""
    groups: Sequence[str] = GROUPS
    read_letters: Callable[[str, str], Iterable[DeadLetter]] = read_dead_letters
    """Those of a log and a group."""
    results_may_be_twice: bool = False
    """A result and the end of its delivery are not one step."""
    counts: Counter[str] = field(default_factory=Counter)

    def audit_log(self, name: str) -> Iterator[str]:
        """Numbers, order, producers, consumers and groups of a log."""
        with blocking.open(self.path(name)) as log:
            first = log.status().first_seq_no or 1
            try:
                stored = [_stored(envelope) for envelope in log.read(0)]
            except CorruptLog as error:
                yield str(error)
                return
        self.counts["events"] += stored[-1].seq_no if stored else 0
        by_number = {one.seq_no: one for one in stored}
        yield from audit.numbers(stored, first)
        yield from audit.order(stored)
        for record in self._records_of(f"producer-{name}-"):
            yield from audit.acknowledged(by_number, record.name, lines_of(record), first)
        for role in self.roles:
            if role.kind == "consume" and role.log == name:
                consumer = Consumer(role.name, may_skip=name == "short")
                for record in self._records_of(f"{role.name}."):
                    yield from consumer.check(by_number, lines_of(record))
                self.counts["seen"] += consumer.seen
        if name == "plain":
            yield from self._audit_groups(stored, by_number)
        if name == "aged" and first > 1:
            yield f"the log {name} begins with event {first}: a clock that jumped aged events"

    def _records_of(self, start: str) -> list[Path]:
        return sorted(self.records.glob(f"{start}*"))

    def _audit_groups(self, stored: list[Stored], by_number: dict[int, Stored]) -> Iterator[str]:
        for group in self.groups:
            letters = letters_in(self.read_letters(self.path("plain"), group))
            dead = {letter.seq_no for letter in letters}
            lines = []
            for record in self._workers_of(group):
                of_one = list(lines_of(record))
                yield from audit.delivered(by_number, of_one, _pid_of(record), group)
                lines += of_one
            self.counts["handled"] += sum(line[0] == "did" for line in lines)
            self.counts["dead"] += len(dead)
            yield from audit.handled(stored, lines, dead, group)
            yield from audit.letters(by_number, letters, group)
            if group == "free":
                yield from audit.results(stored, dead, may_be_twice=self.results_may_be_twice)
            else:
                yield from audit.key_order(lines, group)

    def _workers_of(self, group: str) -> list[Path]:
        return sorted((self.records / f"pool-{group}").glob("worker-*"))

    def audit_letters(self) -> Iterator[str]:
        """Letters past retention: each was kept, and handled in the end."""
        lines = [line for record in self._workers_of(REJECTS) for line in lines_of(record)]
        acked = {
            int(seq_no): (record.name, int(counter))
            for record in self._records_of(f"producer-{LETTERS}-")
            for _, counter, seq_no in lines_of(record)
        }
        left = retriable(letters_of(self.path(LETTERS), REJECTS))
        yield from audit.retried(self.letters, left, lines, acked)

    def audit_followers(self, deleted_ns: list[int], ended_ns: dict[str, int]) -> Iterator[str]:
        """Whoever follows the log that is deleted now and then is told so."""
        for record in self._records_of("follower-"):
            follower = Follower(record.name, lines_of(record), ended_ns[record.name])
            yield from follower.check(deleted_ns, NOTICED_NS)


def letters_of(path: str, group: str) -> list[Letter]:
    """The dead letters of a group."""
    return letters_in(read_dead_letters(path, group))


def letters_in(letters: Iterable[DeadLetter]) -> list[Letter]:
    """What is audited of them."""
    found = []
    for letter in letters:
        event = letter.event if type(letter.event) is dict else {}
        found.append(Letter(letter.seq_no, event.get("p", ""), event.get("n", 0)))
    return found


def retriable(letters: list[Letter]) -> list[Letter]:
    """Those that hold their event, which the log may have no more."""
    return [letter for letter in letters if letter.producer]


def _pid_of(record: Path) -> int:
    return int(record.name.rpartition("-")[2])


def _stored(envelope: Any) -> Stored:
    event = envelope.event
    is_result = "r" in event
    return Stored(
        envelope.seq_no,
        "" if is_result else event["p"],
        event["r"] if is_result else event["n"],
        envelope.key,
        event.get("k", ""),
    )
