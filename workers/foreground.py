"""Handlers over stored events, in this process and without a group: nothing is stored.

::

    in_foreground(code)  the handler as a worker has it: imported, initialized, its coroutines run
    handle               one event: what it returns, or its exception
    run_all              event after event, as fast as they can be read
    outcome_of           what a pool would have stored, or that the event would have failed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from eventlog import EventEnvelope, system
from workers.calling import awaited
from workers.errors import InvalidHandler
from workers.failing import describe
from workers.handlers import Code, Handler, check, is_async, wants_envelope
from workers.results import not_run, results_of

OnFailure = Callable[[EventEnvelope, BaseException], None]


class Running(NamedTuple):
    """A handler that can be called."""

    handler: Handler
    wants_envelope: bool

    def handle(self, envelope: EventEnvelope) -> Any:
        """What it returns for an event.

        Raises:
            Exception: whatever it raises; `TypeError` if it returned what has not begun to run.
        """
        result = self.handler(envelope if self.wants_envelope else envelope.event)
        if result is not None and (error := not_run(result)) is not None:
            raise error
        return result


@contextmanager
def in_foreground(code: Code) -> Iterator[Running]:
    """The handler as a worker has it; coroutines run in one event loop, in a thread.

    Raises:
        InvalidHandler: it cannot be imported, or its initializer has failed.
    """
    check(code)
    try:
        found = code.found()
        if found.initializer is not None:
            found.initializer()
    except (InvalidHandler, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise InvalidHandler(
            f"the handler {code.handler} cannot start: {describe(error)}"
        ) from error
    handler = found.handler
    wanted = wants_envelope(handler)
    if not is_async(handler):
        yield Running(handler, wanted)
        return
    from anyio.from_thread import start_blocking_portal

    with ExitStack() as stack:
        with system.interrupts_held():
            portal = stack.enter_context(start_blocking_portal("trio"))

        def run(argument: Any) -> Any:
            result, error = portal.call(awaited, handler, argument)
            if error is not None:
                raise error
            return result

        yield Running(run, wanted)


def run_all(
    running: Running, batches: Iterable[Sequence[EventEnvelope]], on_failure: OnFailure
) -> tuple[int, int]:
    """Call the handler with each event; how many there were, and how many of them failed."""
    handled = failed = 0
    handler, wanted = running
    for events in batches:
        for envelope in events:
            try:
                # As `Running.handle`, written out: this runs for every event.
                result = handler(envelope if wanted else envelope.event)
                if result is not None and (error := not_run(result)) is not None:
                    raise error
            except KeyboardInterrupt:
                raise  # it ends the command
            except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
                failed += 1
                on_failure(envelope, error)
        handled += len(events)
    return handled, failed


class Outcome(NamedTuple):
    """What a handler has made of an event."""

    results: tuple[Any, ...]
    """What a pool would have stored, as (event, key, headers, times) if it is an envelope."""
    error: str | None
    """Its exception in one line, if it has raised one."""


def outcome_of(running: Running, envelope: EventEnvelope) -> Outcome:
    """Call the handler with an event."""
    try:
        return Outcome(tuple(map(_stored, results_of(running.handle(envelope)))), None)
    except KeyboardInterrupt:
        raise  # it ends the command
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
        return Outcome((), describe(error))


def _stored(result: Any) -> Any:
    """A result without what differs from run to run."""
    if not isinstance(result, EventEnvelope):
        return result
    return result.event, result.key, result.headers, result.not_before, result.expires
