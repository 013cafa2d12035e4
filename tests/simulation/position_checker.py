"""What positions and states of consumers promise, held against a history.

=========================  ====================================================================
entry                      fields
=========================  ====================================================================
`ack`, `ackstate`, `seek`  `op`, `consumer`, `to`: a request begins
`moved`                    `op`: it was answered
`not_moved`                `op`, `error`, `to`, `last`: it was refused
`position`                 `consumer`, `at`, `state`: what a subscription would begin after, with it
=========================  ====================================================================

A request without an answer, of a client that died or gave up, may still be carried out, at any
time; so what is known of a position is a set. A state says which position it is of.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from tests.simulation.history import Checker, state_at


class Place(NamedTuple):
    """Where a consumer is."""

    at: int = 0
    has_state: bool = False


class PositionChecker(Checker):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._may_be: defaultdict[str, set[Place]] = defaultdict(lambda: {Place()})
        self._open: dict[int, tuple[str, str, int]] = {}

    def on_ack(self, who: str, op: int, consumer: str, to: int) -> None:
        self._begin("ack", op, consumer, to)

    def on_ackstate(self, who: str, op: int, consumer: str, to: int) -> None:
        self._begin("ackstate", op, consumer, to)

    def on_seek(self, who: str, op: int, consumer: str, to: int) -> None:
        self._begin("seek", op, consumer, to)

    def _begin(self, kind: str, op: int, consumer: str, to: int) -> None:
        self._open[op] = (kind, consumer, to)
        self._spread(consumer)

    def on_moved(self, who: str, op: int) -> None:
        kind, consumer, to = self._open.pop(op)
        self._may_be[consumer] = {_moved(kind, at, to) for at in self._may_be[consumer]}
        self._spread(consumer)

    def on_not_moved(self, who: str, op: int, error: str, to: int, last: int) -> None:
        kind, _, to = self._open[op]
        if error != "WriterUnavailable":
            if kind == "seek" or to <= last:
                self.blame("refused position", f"{who}: {kind} to {to} of {last}: {error}")
            del self._open[op]

    def _spread(self, consumer: str) -> None:
        """Add where open requests may have brought it, in any order."""
        may_be = self._may_be[consumer]
        requests = [(kind, to) for kind, name, to in self._open.values() if name == consumer]
        size = 0
        while size != len(may_be):
            size = len(may_be)
            may_be |= {_moved(kind, at, to) for kind, to in requests for at in set(may_be)}

    def on_position(self, who: str, consumer: str, at: int, state: bytes | None = None) -> None:
        found, may_be = Place(at, state is not None), self._may_be[consumer]
        if state not in (None, state_at(at)):
            self.blame("position", f"{consumer} is at {at}, with {state!r}")
        if found not in may_be:
            self.blame("position", f"{consumer} is at {found}, and may be at {sorted(may_be)}")
            return
        self._may_be[consumer] = {found}
        self._spread(consumer)


def _moved(kind: str, place: Place, to: int) -> Place:
    if kind == "seek" or to > place.at:
        return Place(to, kind == "ackstate")
    return Place(to, has_state=True) if kind == "ackstate" and to == place.at else place
