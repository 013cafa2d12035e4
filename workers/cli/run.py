"""`workers run`: a pool in the foreground, for a terminal or a supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventlog import EventLogError
from eventlog.cli.address import Log, check_there
from eventlog.cli.metrics import Metrics, metrics_at
from eventlog.cli.streams import utf8
from eventlog.system import absolute_path
from eventlog.terminal.log_lines import LogFormat, LogFormatOption
from eventlog.terminal.positions import PLACES, position_of
from eventlog.terminal.sizes import bytes_of
from workers.cli.app import app
from workers.options import DEFAULTS

if TYPE_CHECKING:
    from workers.cli.views import View

EXAMPLES = """
[bold]Examples[/]

  workers run images --group resize --handler images.tasks:resize -n 4

  workers run orders -g billing --handler billing:charge --ordering key --output invoices

  workers run images -g resize --handler tasks:resize --timeout 30 --max-rss 500M

  workers run images -g resize --handler tasks:resize --until-drained && echo all done

  workers run images -g resize --handler tasks:resize -n 1 --reload

  workers run redis://host/0/images -g resize --handler tasks:resize -n 0 --concurrency 20

  workers run images -g resize --handler tasks:resize --metrics :9465
"""
RUN_EPILOG = (
    "Exit codes: 0 stopped by a signal, or drained; 128 and the signal's number if one came before"
    " all was done with --until-drained; 1 the log failed, or others work in the group"
    " with other options; 2 wrong usage or no log there; 3 the pool failed: its workers cannot"
    " start."
)


@app.command(epilog=EXAMPLES + "\n\n" + RUN_EPILOG)
def run(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    group: Annotated[
        str,
        typer.Option("--group", "-g", help="Whose members the workers are.", callback=utf8),
    ],
    handler: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="What is called with each event.")
    ],
    processes: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--processes",
            min=0,
            help="Workers; by default one for each CPU. 0: handlers run in this process.",
        ),
    ] = None,
    ordering: Annotated[
        str | None, typer.Option(metavar="key", help="Events of one key one at a time, in order.")
    ] = None,
    broadcast: Annotated[
        bool, typer.Option("--broadcast", help="Every worker handles every event.")
    ] = False,
    output: Annotated[
        str | None, typer.Option(metavar="LOG", help="Where results go that are not None.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For one event; then its worker is killed."),
    ] = None,
    max_deliveries: Annotated[
        int, typer.Option(min=1, help="After so many failures an event is a dead letter.")
    ] = DEFAULTS["max_deliveries"],
    concurrency: Annotated[
        int, typer.Option(min=1, help="Events at a time in each worker: tasks, or threads.")
    ] = DEFAULTS["concurrency"],
    max_events_per_worker: Annotated[
        int | None, typer.Option(min=1, help="A fresh worker after so many events.")
    ] = None,
    max_rss: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="A fresh worker when one has that much private memory, as 500M."
        ),
    ] = None,
    max_age: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="A fresh worker after that time.")
    ] = None,
    initializer: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="What each worker calls at its start."),
    ] = None,
    event_type: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="MODULE:CLASS", help="What events are converted to for the handler."
        ),
    ] = None,
    retry_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXCEPTION",
            help="Try again after these only, as OSError or MODULE:NAME (may be given several"
            " times); by default after all.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="POSITION",
            help=f"Where a group begins that is new: {PLACES}",
        ),
    ] = "last-acknowledged",
    lease: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="On a server: a machine that it has not heard of for so long counts as dead, and"
            " its events go to others (default: 30).",
        ),
    ] = None,
    stop_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long running handlers may go on at the end."),
    ] = DEFAULTS["stop_s"],
    until_drained: Annotated[
        bool,
        typer.Option("--until-drained", help="End when all is handled that is in the log now."),
    ] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when a .py file below here changes.")
    ] = False,
    reload_dir: Annotated[
        Path | None,
        typer.Option(help="The same, below this folder.", exists=True, file_okay=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The pool's figures, one JSON object per line.")
    ] = False,
    metrics: Metrics = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Handle the events of a log in worker processes, until SIGTERM or Ctrl-C.

    The first signal lets running handlers end, and gives the rest back; a second one kills the
    workers. Modules are found from the current folder, too. On a terminal a table shows every
    worker; otherwise log lines say what happens.
    """
    from workers.cli.views import open_view

    check_there(log)
    if processes == 0 and (reload or reload_dir):
        raise typer.BadParameter("--reload starts worker processes anew; give -n 1 or more")
    options = {
        "group": group,
        "handler": handler,
        "processes": processes,
        "ordering": ordering,
        "broadcast": broadcast,
        "output": output,
        "timeout": timeout,
        "max_deliveries": max_deliveries,
        "concurrency": concurrency,
        "max_events_per_worker": max_events_per_worker,
        "max_rss_bytes": None if max_rss is None else bytes_of(max_rss),
        "max_age_s": max_age,
        "initializer": initializer,
        "position": position_of(start),
        "type": event_type,
        "retry_on": tuple(retry_on) if retry_on else None,
        "stop_s": stop_timeout,
    }
    folder = reload_dir or (Path() if reload else None)
    with metrics_at(metrics, log):
        _work(
            log,
            options,
            until_drained=until_drained,
            folder=folder,
            open_view=partial(open_view, as_json=as_json, log_format=log_format),
            lease_s=lease,
        )


def _work(
    log: str,
    options: dict[str, Any],
    *,
    until_drained: bool,
    folder: Path | None,
    open_view: Callable[[str], AbstractContextManager[View]],
    lease_s: float | None,
) -> None:
    """Run pools until told to stop; raises what they ended of."""
    import trio

    from workers.cli.session import Session, first_of, ignore_signals

    # Workers take the path over, and import the handler; this process does so with `-n 0` alone.
    with suppress(FileNotFoundError):  # it was deleted
        sys.path.insert(0, os.getcwd())
    failure: EventLogError | None = None
    with open_view(f"{options['group']} of {log}") as view:
        watched = None if folder is None else absolute_path(str(folder))
        session = Session(
            log, options, view, until_drained=until_drained, folder=watched, lease_s=lease_s
        )
        try:
            trio.run(session.run)
        except* EventLogError as errors:
            failure = first_of(errors)
        finally:
            ignore_signals()
    if error := failure or session.failure or session.broken_pipe:
        raise error
    if until_drained and not session.is_drained and session.ended_by is not None:
        raise typer.Exit(128 + session.ended_by)
