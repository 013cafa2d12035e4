"""What the log's bucket holds of a consumer, and of the group of its name, as JSON. Pure.

It is what every engine over a server knows of one (see `remote.group_state`), and results on their
way: they are in the log before their event is done.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from eventlog.remote import group_state


class Storing(msgspec.Struct, frozen=True):
    """Results of an event that is done once they are in the log; they wait in the bucket."""

    member: int
    place: int
    """Which keys hold them."""
    count: int
    token: str
    """Names them in the log."""
    after: int
    """They are behind this event of the log."""
    since_ns: int


class Consumer(group_state.Consumer, omit_defaults=True):
    """A consumer, and the group of its name if it has one."""

    storing: dict[int, Storing] = {}  # noqa: RUF012 - a struct copies it
    state: bytes | None = None
    """What `ack(..., state=)` stored; it counts while the position is `state_at`."""
    state_at: int = 0

    @property
    def current_state(self) -> bytes | None:
        """The state of the position."""
        return self.state if self.state_at == self.position else None

    def keep(self, position: int, state: bytes) -> None:
        """Acknowledge with a state."""
        if position > self.position:
            self.skip(position)
        if position == self.position:
            self.state, self.state_at = state, position

    def settling(self) -> Iterable[int]:
        """Those whose results are on their way."""
        return self.storing

    def finish(self, seq_no: int) -> None:
        """The event needs no handling any more."""
        self.storing.pop(seq_no, None)
        super().finish(seq_no)

    def seek(self, position: int) -> None:
        """Begin anew after `position`: what members have is nobody's any more."""
        super().seek(position)
        self.storing = {}
        self.state = None

    def orphans(self) -> dict[int, Storing]:
        """Results that no member stores any more."""
        return {n: one for n, one in self.storing.items() if one.member not in self.members}
