"""The errors of pools; those of logs come through as they are."""

from __future__ import annotations

from typing import Any

from eventlog import EventLogError

__all__ = ["InvalidHandler", "PoolError", "PoolFailed", "Reject"]


class PoolError(EventLogError):
    """A pool was used before it began or after its end, or begun twice; and the base of others."""


class InvalidHandler(PoolError, ValueError):
    """The handler cannot be sent to a worker process, or is none; raised before any is started."""


class Reject(Exception):
    """Raised by a handler: the event becomes a dead letter at once, with the reason as its error.

    ::

        if order["amount"] < 0:
            raise workers.Reject("an order has a negative amount")
    """

    __module__ = "workers"


class PoolFailed(PoolError):
    """The pool cannot go on: its workers cannot start. The message quotes what they said.

    `worker_traceback` is the traceback of the worker's own exception, if there was one.
    """

    def __init__(self, message: str, *, worker_traceback: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.worker_traceback = worker_traceback
