"""The dead letters of a group of a log in memory. Pure."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace

from eventlog.api.group import DeadLetter
from eventlog.event.envelope import TIMESTAMP_BYTES, Columns, EventEnvelope, envelopes_of


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, with the copy that a retry runs should retention delete the event."""

    letter: DeadLetter
    copy: EventEnvelope | None
    is_corrected: bool = False
    """The copy is what is to be handled, whatever the log has."""


@dataclass(slots=True)
class Letters:
    """The dead letters of one name, in the order in which they died; they outlive their group."""

    stored: dict[int, Letter] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)
    """Those that are handed out again: they are not listed meanwhile."""

    def add(self, seq_no: int, letter: Letter) -> None:
        """The newest one; an older one of the event is replaced."""
        self.retried.discard(seq_no)
        self.stored.pop(seq_no, None)
        self.stored[seq_no] = letter

    def correct(self, seq_no: int, old: EventEnvelope, event: EventEnvelope) -> bool:
        """Put another payload into the letter of an event; whether it is listed."""
        known = self.stored.get(seq_no)
        if known is None or seq_no in self.retried:
            return False
        columns = Columns(
            seq_no,
            old.id.bytes,
            old.timestamp_ns.to_bytes(TIMESTAMP_BYTES, "little"),
            [known.letter.key],
            [known.letter.headers],
        )
        (envelope,) = envelopes_of([event.event], columns)
        letter = replace(known.letter, event=deepcopy(event).event)
        self.stored[seq_no] = Letter(letter, envelope, is_corrected=True)
        return True

    def corrected(self, seq_no: int) -> EventEnvelope | None:
        """What is handled in the place of an event, if its letter was corrected."""
        letter = self.stored.get(seq_no)
        return letter.copy if letter is not None and letter.is_corrected else None

    def settle(self, seq_no: int) -> None:
        """The event is handled: a retry of it has succeeded."""
        if seq_no in self.retried:
            self.retried.discard(seq_no)
            del self.stored[seq_no]

    def listed(self) -> list[DeadLetter]:
        """Those that nobody retries."""
        return [one.letter for n, one in self.stored.items() if n not in self.retried]

    def drop(self, seq_nos: set[int]) -> int:
        """Forget those of these numbers that are listed; how many there were."""
        dropped = [n for n in self.stored if n in seq_nos and n not in self.retried]
        for seq_no in dropped:
            del self.stored[seq_no]
        return len(dropped)
