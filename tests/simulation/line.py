"""A client's pipe: performs what the real conversations ask for, one operation at a step."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from eventlog.errors import EventLogError
from eventlog.local.client.conversations import Channel, OpenPipe, PipeBroken, Send, Steps
from tests.simulation.writer import Action, Link, piece_of

OpenLink = Callable[[str], Link | None]
"""A fresh pipe to a writer that is started if need be; `None` if that one died at once."""


class Line:
    """One conversation's pipe, opened when it is first needed and again when it broke."""

    def __init__(
        self, owner: str, channel: Channel, open_link: OpenLink, rng: random.Random
    ) -> None:
        self.owner = owner
        self.channel = channel
        self.link: Link | None = None
        self._open_link = open_link
        self._rng = rng
        self._steps: Steps[Any] | None = None
        self._wanted: Any = None
        self._on_end: Callable[[Any, EventLogError | None], None] = lambda _result, _error: None

    @property
    def is_idle(self) -> bool:
        """Whether no conversation is under way."""
        return self._steps is None

    def begin(self, steps: Steps[Any], on_end: Callable[[Any, EventLogError | None], None]) -> None:
        """Carry a conversation out; `on_end` gets what it returns, or raises."""
        assert self.is_idle
        self._steps, self._on_end = steps, on_end
        self._go_on(lambda: next(steps))

    def actions(self) -> list[Action]:
        """The next operation, if it can be performed."""
        if self._steps is None:
            return []
        if isinstance(self._wanted, OpenPipe | Send):
            return [self._perform]
        link = self.link
        return [self._perform] if link is None or link.to_client or link.is_gone else []

    def _perform(self) -> None:
        steps = self._steps
        assert steps is not None
        try:
            outcome = self._outcome()
        except PipeBroken as broken:
            self.link = None
            error = broken
            self._go_on(lambda: steps.throw(error))
        except BlockingIOError:
            return
        else:
            self._go_on(lambda: steps.send(outcome))

    def _outcome(self) -> bytes | None:
        if isinstance(self._wanted, OpenPipe):
            self.link = self._open_link(self.owner)
            if self.link is None:
                raise BlockingIOError
            return None
        if self.link is None:
            raise PipeBroken("the pipe is closed")
        if isinstance(self._wanted, Send):
            if self.link.is_gone:
                raise PipeBroken("the other end is closed")
            self.link.to_writer += b"".join(self._wanted.parts)
            return None
        if not self.link.to_client:
            raise PipeBroken("the writer closed the pipe")
        return piece_of(self.link.to_client, self._rng)

    def _go_on(self, move: Callable[[], Any]) -> None:
        try:
            self._wanted = move()
        except StopIteration as end:
            self._end(end.value, None)
        except EventLogError as error:
            self._end(None, error)

    def _end(self, result: Any, error: EventLogError | None) -> None:
        self._steps = None
        self._on_end(result, error)

    def die(self) -> Link | None:
        """The client's process ends; its pipe, which somebody has to hang up."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        link, self.link = self.link, None
        return link
