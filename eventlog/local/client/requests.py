"""The pipes of what a handle, a group or a stream asks; both shells run calls through them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from eventlog.api import forks
from eventlog.api.refusals import closed
from eventlog.local.client.conversations import Channel
from eventlog.local.client.handle import ClosablePipe, LocalHandle
from eventlog.local.wire.messages import Request

Pipe = TypeVar("Pipe", bound=ClosablePipe)


class Requests(Generic[Pipe]):
    """One pipe for all that is answered at once, and one for each kind that waits.

    `what` has them: a "handle", a "group" or a "stream". All are closed with the handle.
    """

    def __init__(
        self, handle: LocalHandle, what: str, open_pipe: Callable[[str, Channel], Pipe]
    ) -> None:
        self.handle = handle
        self.is_closed = False
        self._what = what
        self._open_pipe = open_pipe
        self._pipes: dict[type[Request] | None, Pipe] = {}
        self._opening = threading.Lock()

    def check_open(self) -> None:
        """Pass if this, and the handle, is open, and of this process and event loop.

        Raises:
            LogClosed, ForkedHandle, WrongEventLoop: it is not.
        """
        if self.is_closed:
            raise closed(self._what, self.handle.path)
        self.handle.check_open()

    def pipe_for(self, kind: type[Request]) -> Pipe:
        """The pipe for such a request."""
        with self._opening:
            self.check_open()
            purpose = kind if kind.waits else None
            pipe = self._pipes.get(purpose)
            if pipe is None:
                pipe = self._open_pipe(self.handle.path, self.handle.new_channel())
                self._pipes[purpose] = self.handle.adopt(pipe)
            return pipe

    def close(self) -> None:
        """Close the pipes: whoever waits in them gets `LogClosed`; may be called twice."""
        self.is_closed = True
        if self.handle.generation != forks.generation:
            return  # the pipes are the parent's too
        with self._opening:
            pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            self.handle.pipes.discard(pipe)
            pipe.close()
