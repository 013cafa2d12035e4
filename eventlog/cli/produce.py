"""`eventlog append`: events from arguments, or from the lines of the standard input."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, BinaryIO, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eventlog import blocking
from eventlog.cli.address import MadeLog, check_usable
from eventlog.cli.app import EPILOG, app
from eventlog.cli.streams import input_lines, standard_input, utf8
from eventlog.errors import EventTooLarge, InvalidArgument, InvalidEvent
from eventlog.event.scheduled import scheduled
from eventlog.terminal.positions import due_moment_of
from eventlog.terminal.printing import say
from eventlog.terminal.show import JSON_FORMS, event_of_json, to_json

T = TypeVar("T")

EXAMPLES = """
[bold]Examples[/]

  eventlog append orders '{"order": 7}' --key 7

  eventlog append notes --text 'just words' 'and more'

  producer | eventlog append orders          (one JSON value per line)

  eventlog append mails '{"remind": 7}' --not-before 15m --expires 2h

  tail -F app.log | eventlog append app --text
"""


@app.command(epilog=f"{EXAMPLES}\n\n{JSON_FORMS}\n\n{EPILOG}")
def append(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: MadeLog,
    events: Annotated[
        list[str] | None,
        typer.Argument(help="Events as JSON; without any, lines of the input.", callback=utf8),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Events are plain text, not JSON.")] = False,
    key: Annotated[
        str | None, typer.Option(help="The key of all these events.", callback=utf8)
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(help="A header, NAME=VALUE; may be repeated.", callback=utf8),
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(help="Groups hand them out then: a time, or in how long, such as 15m."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="No handler begins with them from then on: a time, or in how long."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say the numbers as JSON.")] = False,
) -> None:
    """Append events to a log and print their numbers."""
    check_usable(log)
    headers = _headers(header or [])
    now = datetime.now(UTC)
    times = [None if one is None else due_moment_of(one, now) for one in (not_before, expires)]
    source = None
    if not events:
        source = standard_input("give events as arguments, or lines on it")
    with blocking.open(log) as opened, opened.publisher() as publisher:
        first = last = None
        values = _from_arguments(events or []) if source is None else _from_lines(source, text=text)
        for place, content in _shown(values):
            value = content if text else _parsed(content, place)
            try:
                last = publisher.send(scheduled(value, *times), key=key, headers=headers)
            except (InvalidEvent, EventTooLarge) as error:
                raise type(error)(
                    f"{place}: {error}; those before it are appended", path=error.path
                ) from error.__cause__
            first = first or last
        if first is None or last is None:
            return
        numbers = first.result(), last.result()
    say(
        to_json({"first": numbers[0], "last": numbers[1]})
        if as_json
        else f"{numbers[0]}" + (f"..{numbers[1]}" if numbers[0] != numbers[1] else "")
    )


def _headers(given: list[str]) -> dict[str, str] | None:
    for header in given:
        if "=" not in header:
            raise InvalidArgument(f"the header {header!r} is not of the form NAME=VALUE")
    return dict(header.split("=", 1) for header in given) or None


def _from_arguments(events: list[str]) -> Iterator[tuple[str, str]]:
    """The events, and where each stands."""
    for number, event in enumerate(events, 1):
        try:
            event.encode()
        except UnicodeEncodeError:
            raise InvalidEvent(
                f"argument {number} is no UTF-8; those before it are appended"
            ) from None
        yield f"argument {number}", event


def _from_lines(source: BinaryIO, *, text: bool) -> Iterator[tuple[str, str]]:
    """The lines of the input, and where each stands; empty ones are texts, and no JSON."""
    for number, line in input_lines(source):
        if text or line.strip():
            yield f"line {number}", line


def _parsed(text: str, place: str) -> Any:
    try:
        return event_of_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(
            f"{place} is no JSON of an event ({error}): {text!r:.60}; those before it are appended;"
            " give --text for plain text"
        ) from None


def _shown(values: Iterator[T]) -> Iterator[T]:
    """The same values; a terminal sees how many there were, once it takes long."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from values
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} events"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("append", total=None)
        for value in values:
            yield value
            progress.advance(task)
