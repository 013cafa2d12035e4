"""OpenTelemetry for handlers: a span for each delivery, in the trace of the event. Opt-in.

::

    from workers.tracing import traced

    @traced
    def charge(event): ...

Needs `pip install 'eventlog[opentelemetry]'`. Each worker process has to set its tracer up, in the
pool's `initializer`.
"""

from __future__ import annotations

from typing import Any

from eventlog import EventEnvelope, tracing
from workers.handlers import Handler, is_async, wants_envelope
from workers.results import NOT_RUN, Results, results_of

__all__ = ["traced"]


def traced(handler: Handler) -> Handler:
    """The handler with a span for each delivery, which is a child of the one that sent the event.

    Its results carry the span in their headers, so that whoever handles those goes on with the
    trace. What the handler raises is recorded in the span, and goes on to the pool.
    """
    wants = wants_envelope(handler)
    name = getattr(handler, "__name__", type(handler).__name__)

    def run(envelope: EventEnvelope) -> Any:
        with tracing.handling(envelope, name):
            return _in_trace(handler(envelope if wants else envelope.event), envelope)

    async def run_async(envelope: EventEnvelope) -> Any:
        with tracing.handling(envelope, name):
            returned = await handler(envelope if wants else envelope.event)
            return _in_trace(returned, envelope)

    made = run_async if is_async(handler) else run
    # Not by functools.wraps: the pool looks at the parameter's name.
    made.__name__, made.__qualname__ = name, getattr(handler, "__qualname__", name)
    made.__module__, made.__doc__ = handler.__module__, handler.__doc__
    return made


def _in_trace(returned: Any, source: EventEnvelope) -> Any:
    """What a handler returned, as results with the current span in their headers."""
    if isinstance(returned, NOT_RUN):  # the pool says what is wrong with such a handler
        return returned
    results = [_with_headers(one, source) for one in results_of(returned)]
    return Results(results) if isinstance(returned, Results) else next(iter(results), None)


def _with_headers(result: Any, source: EventEnvelope) -> EventEnvelope:
    if not isinstance(result, EventEnvelope):
        return EventEnvelope(result, key=source.key, headers=tracing.headers())
    return result.__replace__(headers=tracing.headers(result.headers))
