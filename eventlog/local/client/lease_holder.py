"""What a lease needs of the member that has it: a process's own, or a simulated one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from eventlog.api.group import OnRefused
from eventlog.local.client.conversations import Steps
from eventlog.local.client.member_events import MemberEvents
from eventlog.local.client.membership import HeldEvents, Membership
from eventlog.local.client.results import ResultWriter


class Pipe(Protocol):
    """What a lease says something by."""

    @property
    def changed(self) -> AbstractContextManager[Any]:
        """Guards what the lease and the pipe share."""

    @property
    def membership(self) -> Membership:
        """What the member is to the writer; its page is `None` once the member is closed."""

    def say_of(self, lease: HeldEvents, kind: Any, *fields: Any) -> None:
        """Say something of a lease; of one that is somebody else's by now, nothing."""


class Holder(Protocol):
    """The member whose lease it is."""

    group: str
    max_deliveries: int
    is_ordered: bool
    settle_ns: int
    """How long what is done may stay unsaid."""
    results: ResultWriter | None
    events: MemberEvents

    @property
    def on_refused(self) -> OnRefused:
        """What says how an event has failed whose results are refused."""

    @property
    def path(self) -> str:
        """The log's."""

    @property
    def pipe(self) -> Pipe:
        """What the member says something by."""

    def carry_out(self, settling: Steps[None]) -> None:
        """Perform what settling asks for."""
