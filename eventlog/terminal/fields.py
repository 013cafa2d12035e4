"""The fields of an envelope by name, and what lies in them: for `--where` and `--format`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from eventlog.event.envelope import EventEnvelope

Field = Callable[[EventEnvelope], Any]
Piece = str | int
"""A name in a mapping, or a place in a list."""

TIMES: Final = ("timestamp", "stored_at", "not_before", "expires")


def _cause(envelope: EventEnvelope) -> dict[str, Any] | None:
    cause = envelope.cause
    if cause is None:
        return None
    return {"log_id": str(cause.log_id), "seq_no": cause.seq_no, "group": cause.group}


def _id(envelope: EventEnvelope) -> str:
    return str(envelope.id)


FIELDS: Final[dict[str, Field]] = {
    "seq_no": attrgetter("seq_no"),
    "id": _id,
    "timestamp": attrgetter("timestamp"),
    "stored_at": attrgetter("stored_at"),
    "key": attrgetter("key"),
    "headers": attrgetter("headers"),
    "cause": _cause,
    "not_before": attrgetter("not_before"),
    "expires": attrgetter("expires"),
    "event": attrgetter("event"),
}


def inside(value: Any, piece: Piece) -> Any:
    """The value under a name of a mapping, or at a place of a list; `None` if there is none.

    It never asks an object for its attributes.
    """
    if isinstance(value, Mapping):
        return value.get(piece)
    if isinstance(value, list | tuple) and isinstance(piece, int):
        return value[piece] if -len(value) <= piece < len(value) else None
    return None
