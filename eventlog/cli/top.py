"""`top`: what logs do now, on a screen, a line a second, or once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from eventlog.api.extras import check_extra
from eventlog.cli.address import check_there
from eventlog.cli.app import EPILOG, app
from eventlog.monitor.history import History
from eventlog.monitor.sample import Sampler, opened_to_look
from eventlog.monitor.text import line_of, log_table, reader_table
from eventlog.monitor.views import LogView, known_fields
from eventlog.terminal.printing import is_terminal, print_table, say, say_now
from eventlog.terminal.show import to_json

Logs = Annotated[list[str], typer.Argument(help="The logs: directories, or addresses of engines.")]

EXAMPLES = """
[bold]Examples[/]

  eventlog top orders                          (needs eventlog\\[top]; ? shows the keys)

  eventlog top orders images --plain           (a line a second, for pipes and logs)

  eventlog top orders --once --json | jq .consumers
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def top(
    logs: Logs,
    plain: Annotated[bool, typer.Option("--plain", help="A line for each look at a log.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each look.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
) -> None:
    """Show what logs do now: rates, lag, groups and their workers, dead letters, the writer.

    In a pipe it is --plain. It starts no writer for a directory. Rates are those of the last five
    seconds; "caught up in" is when the lag is 0 if all goes on as now.
    """
    if not (once or plain or as_json) and is_terminal():
        _screen([check_there(log) for log in logs], interval)
        return
    with _watched(logs) as watched:
        looks = _looks(watched, interval)
        if once:
            next(looks)  # rates need two
            _print_once(next(looks), as_json=as_json)
            return
        for views in looks:
            for view in views:
                say_now(to_json(known_fields(view)) if as_json else line_of(view))


@contextmanager
def _watched(logs: list[str]) -> Iterator[list[tuple[Sampler, History]]]:
    with ExitStack() as stack:
        watched = []
        for log in logs:
            check_there(log)
            opened = stack.enter_context(opened_to_look(log))
            sampler = Sampler(opened)
            stack.callback(sampler.close)
            watched.append((sampler, History()))
        yield watched


def _look(watched: list[tuple[Sampler, History]]) -> list[LogView]:
    return [history.add(sampler.take()) for sampler, history in watched]


def _looks(watched: list[tuple[Sampler, History]], interval: float) -> Iterator[list[LogView]]:
    due = time.monotonic()
    while True:
        yield _look(watched)
        now = time.monotonic()
        due = max(due + interval, now)  # a look may take longer than the interval
        time.sleep(due - now)


def _print_once(views: list[LogView], *, as_json: bool) -> None:
    if as_json:
        for view in views:
            say(to_json(known_fields(view)))
        return
    print_table(log_table(views))
    for view in views:
        if view.readers:
            say("")
            print_table(reader_table(view))


def _screen(logs: list[str], interval: float) -> None:
    check_extra("top", "the screen of `eventlog top`, unlike --plain and --once, needs")
    from eventlog.monitor.screen import show

    show(logs, interval)
