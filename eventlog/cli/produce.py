"""`eventlog append`: events from arguments, or from the lines of the standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eventlog import blocking
from eventlog.cli.app import EPILOG, app
from eventlog.errors import InvalidArgument, InvalidEvent

EXAMPLES = """
[bold]Examples[/]

  eventlog append orders '{"order": 7}' --key 7

  eventlog append notes --text 'just words' 'and more'

  producer | eventlog append orders          (one JSON value per line)

  tail -F app.log | eventlog append app --text
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def append(
    log: Annotated[str, typer.Argument(help="The log's directory; made if there is none.")],
    events: Annotated[
        list[str] | None, typer.Argument(help="Events as JSON; without any, lines of the input.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Events are plain text, not JSON.")] = False,
    key: Annotated[str | None, typer.Option(help="The key of all these events.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="A header, NAME=VALUE; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say the numbers as JSON.")] = False,
) -> None:
    """Append events to a log and print their numbers."""
    headers = _headers(header or [])
    if not events and sys.stdin.isatty():
        raise typer.BadParameter("give events as arguments, or lines on the standard input")
    with blocking.open(log) as opened, opened.publisher() as publisher:
        first = last = None
        for value in _shown(_values(events, text=text)):
            last = publisher.send(value, key=key, headers=headers)
            first = first or last
        if first is None or last is None:
            return
        numbers = first.result(), last.result()
    typer.echo(
        json.dumps({"first": numbers[0], "last": numbers[1]})
        if as_json
        else f"{numbers[0]}" + (f"..{numbers[1]}" if numbers[0] != numbers[1] else "")
    )


def _headers(given: list[str]) -> dict[str, str] | None:
    for header in given:
        if "=" not in header:
            raise InvalidArgument(f"the header {header!r} is not of the form NAME=VALUE")
    return dict(header.split("=", 1) for header in given) or None


def _values(events: list[str] | None, *, text: bool) -> Iterator[Any]:
    """The events, and where one is no JSON, its place."""
    if events:
        for place, event in enumerate(events, 1):
            yield event if text else _parsed(event, f"argument {place}")
        return
    for number, line in enumerate(sys.stdin, 1):
        content = line.rstrip("\n")
        if text:
            yield content
        elif content.strip():
            yield _parsed(content, f"line {number}")


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(
            f"{place} is no JSON ({error}): {text!r:.60}; those before it are appended; give"
            " --text for plain text"
        ) from None


def _shown(values: Iterator[Any]) -> Iterator[Any]:
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
