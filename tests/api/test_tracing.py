"""Traces of OpenTelemetry, from who appends through handlers to their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventlog import blocking, tracing
from workers.blocking import Pool
from workers.results import Results
from workers.tracing import traced

EXPORTER = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))


@pytest.fixture(autouse=True)
def _exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trace, "get_tracer", PROVIDER.get_tracer)
    yield
    EXPORTER.clear()


def spans() -> dict[str, ReadableSpan]:
    return {span.name: span for span in EXPORTER.get_finished_spans()}


@traced
def halve(event: int) -> int:
    return event // 2


@traced
async def twice(event: int) -> Results:
    return Results([event, event])


@traced
def fail(_event: object) -> None:
    raise ValueError("not today")


def test_a_trace_goes_from_who_appends_through_the_handler_to_its_result() -> None:
    with blocking.open("memory:") as log, blocking.open("memory:halves") as output:
        with PROVIDER.get_tracer("shop").start_as_current_span("checkout") as sent:
            log.append(8, key="k", headers=tracing.headers({"tenant": "a"}))
        with Pool(log, group="g", handler=halve, processes=0, output=output) as pool:
            pool.drained()
        (result,) = output.read(0)
        assert (result.event, result.key) == (4, "k")
        with Pool(output, group="g", handler=twice, processes=0, output=output) as pool:
            pool.drained()
        assert [one.event for one in output.read(0)] == [4, 4, 4]
    handled, again = spans()["process halve"], spans()["process twice"]
    assert handled.context is not None
    assert again.context is not None
    assert handled.parent is not None
    assert handled.parent.span_id == sent.get_span_context().span_id
    assert again.parent is not None
    assert again.parent.span_id == handled.context.span_id
    assert again.context.trace_id == sent.get_span_context().trace_id
    assert handled.attributes is not None
    assert handled.attributes["eventlog.seq_no"] == 1
    assert handled.kind is trace.SpanKind.CONSUMER


def test_what_a_handler_raises_is_in_its_span_and_reaches_the_pool() -> None:
    with blocking.open("memory:") as log:
        log.append(1)
        with Pool(log, group="g", handler=fail, processes=0, max_deliveries=1) as pool:
            pool.drained()
            (letter,) = log.dead_letters("g")
    assert letter.error == "ValueError: not today"
    assert not spans()["process fail"].status.is_ok


@traced
def begin(event: object) -> Iterator[object]:
    yield event


async def _later(event: object) -> object:
    return event


@traced
def forget_to_await(event: object) -> object:
    return _later(event)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("handler", [begin, forget_to_await])
def test_a_handler_that_has_not_run_is_no_success_by_being_traced(
    handler: Callable[[object], object],
) -> None:
    # It was acknowledged, and the event was lost.
    with blocking.open("memory:") as log:
        log.append(1)
        with Pool(log, group="g", handler=handler, processes=0, max_deliveries=1) as pool:
            pool.drained()
            assert pool.statistics().handled == 0
            assert len(log.dead_letters("g")) == 1


def test_without_a_trace_nothing_is_added() -> None:
    assert tracing.headers() is None
    assert tracing.headers({"a": "b"}) == {"a": "b"}
