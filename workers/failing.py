"""What a group is told of an event that failed, wherever its handler ran."""

from __future__ import annotations

import logging
import random
import traceback
from dataclasses import dataclass
from typing import Final

from eventlog import EventEnvelope, EventTypeMismatch, Failure
from workers.errors import Reject
from workers.handlers import RetryOn
from workers.policy import Backoff

logger = logging.getLogger("workers")
TEXT_CHARACTERS_MAX: Final = 8000
TRACEBACK_CHARACTERS_MAX: Final = 16_000


@dataclass(frozen=True, slots=True)
class Failing:
    """The rules of one group by which an error becomes a `Failure`."""

    group: str
    max_deliveries: int
    backoff: Backoff
    retry_on: RetryOn

    def failure_of(self, envelope: EventEnvelope, attempt: int, error: BaseException) -> Failure:
        """Its handler raised, or the output refused its results."""
        if isinstance(error, MemoryError):
            # What the handler had is held by its frames, and the memory is needed here.
            traceback.clear_frames(error.__traceback__)
        is_of_no_use = isinstance(error, Reject | EventTypeMismatch)
        is_final = is_of_no_use or not isinstance(error, self.retry_on)
        logger.warning(
            "event %d of group %s %s (attempt %d of %d)%s: %s",
            *(envelope.seq_no, self.group, "was rejected" if is_of_no_use else "failed"),
            *(attempt, self.max_deliveries),
            " and is a dead letter now" if is_final or attempt >= self.max_deliveries else "",
            describe(error),
        )
        return Failure(
            error=describe(error),
            traceback=traceback_of(error),
            delay_s=self.backoff.delay_s(attempt, random.random),
            is_final=is_final,
        )


def describe(error: BaseException) -> str:
    """The error in one line, as the last one of a traceback."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = " ".join(str(error).split())
    except Exception as other:  # noqa: BLE001 - a user's exception that cannot say what it is
        text = f"<its text cannot be had: {type(other).__qualname__}>"
    return storable(f"{name}: {text}"[:TEXT_CHARACTERS_MAX] if text else name)


def traceback_of(error: BaseException) -> str:
    """The whole traceback, or the end of it if it is long."""
    text = "".join(traceback.format_exception(error))
    return storable(text[-TRACEBACK_CHARACTERS_MAX:])


def storable(text: str) -> str:
    """The text without what UTF-8 cannot carry, such as halves of surrogate pairs."""
    return text.encode(errors="backslashreplace").decode()
