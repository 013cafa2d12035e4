"""`eventlog serve`: a log's writer in the foreground, for a supervisor."""

from __future__ import annotations

import logging
import math
from typing import Annotated, cast

import typer

from eventlog.api.waiting import warn_of_options
from eventlog.cli.address import check_directory
from eventlog.cli.app import EPILOG, app
from eventlog.cli.metrics import Metrics, metrics_at
from eventlog.config import AskedOptions, Durability
from eventlog.errors import InvalidArgument
from eventlog.terminal.log_lines import LogFormat, LogFormatOption, formatter_of

EXAMPLES = """
[bold]Examples[/]

  eventlog serve /var/lib/orders/log

  eventlog serve /var/lib/orders/log --durability sync

  eventlog serve /var/lib/orders/log --cpus 0,1

  eventlog serve /var/lib/orders/log --metrics :9464
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def serve(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Annotated[str, typer.Argument(help="The log's directory; made if there is none.")],
    durability: Annotated[
        str | None, typer.Option(help="memory, disk or sync; for a log that is made now.")
    ] = None,
    linger: Annotated[
        float | None, typer.Option(help="Leave after so many seconds without a connection.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of another serve, and follow it.")
    ] = False,
    cpus: Annotated[
        str | None, typer.Option(help="Run on these processors alone: 0,1 or 0-3.")
    ] = None,
    metrics: Metrics = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Be the writer of a log until SIGTERM or Ctrl-C, which end it in order.

    It takes the place of a writer that clients started; they go on without an error. A log that
    another `eventlog serve` serves is an error, unless --wait is given.
    """
    from eventlog.local.client.launch import prepare
    from eventlog.local.storage.control import ControlPage
    from eventlog.local.writer import __main__ as writer
    from eventlog.local.writer.placement import run_on

    if linger is not None and not 0 <= linger < math.inf:  # so that NaN is refused too
        raise InvalidArgument(f"--linger {linger}: give seconds, 0 or more")
    _log_as(log_format)
    directory = check_directory(log, "serve")
    if cpus is not None:
        run_on(cpus, directory)
    asked = AskedOptions(durability=cast("Durability | None", durability))
    prepare(directory, asked)
    control = ControlPage(directory)
    try:
        warn_of_options(asked.check_against(control.options, directory, control.changed_options))
    finally:
        control.close()
    with metrics_at(metrics, directory):
        writer.serve(directory, linger_s=linger, replaces=True, waits=wait)


def _log_as(log_format: LogFormat) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter_of(log_format, "%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
