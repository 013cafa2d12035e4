"""OpenTelemetry for events: the trace that an event belongs to travels in its headers. Opt-in.

::

    from eventlog import tracing

    with tracer.start_as_current_span("checkout"):
        log.append({"order": 7}, headers=tracing.headers())

The headers are those of the propagator that the program has set, as a rule `traceparent` of the W3C
Trace Context. Needs `pip install 'eventlog[opentelemetry]'`; without a configured tracer nothing is
added. Handlers of a pool go on with the trace by `workers.tracing.traced`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from eventlog.api.extras import check_extra

if TYPE_CHECKING:
    from eventlog.event.envelope import EventEnvelope

check_extra("opentelemetry", "eventlog.tracing needs")

from opentelemetry import propagate, trace  # noqa: E402 - what is missing was told

__all__ = ["handling", "headers"]

SCOPE: Final = "eventlog"


def headers(more: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Headers for an event of the current trace, beside `more`; `None` if there are none at all."""
    found = dict(more or {})
    propagate.inject(found)
    return found or None


@contextmanager
def handling(envelope: EventEnvelope, name: str) -> Iterator[None]:
    """A span around the handling of an event: a child of the span that is in its headers.

    An exception is recorded in it, and goes on. The names of attributes are those of the
    conventions of OpenTelemetry for messaging, which may still change.
    """
    attributes: dict[str, str | int] = {
        "messaging.system": "eventlog",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(envelope.id),
        "eventlog.seq_no": envelope.seq_no or 0,
        "eventlog.attempt": envelope.attempt,
    }
    with trace.get_tracer(SCOPE).start_as_current_span(
        f"process {name}",
        context=propagate.extract(envelope.headers or {}),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        yield
