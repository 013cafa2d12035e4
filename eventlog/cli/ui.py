"""`ui`: what logs do now, and their events, as a page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from eventlog.api.extras import check_extra
from eventlog.cli.address import check_there
from eventlog.cli.app import EPILOG, app
from eventlog.cli.metrics import Metrics, metrics_at
from eventlog.terminal.printing import say_now

Logs = Annotated[list[str], typer.Argument(help="The logs: directories, or addresses of engines.")]

EXAMPLES = """
[bold]Examples[/]

  eventlog ui orders                           (needs eventlog\\[ui]; prints the page's address)

  eventlog ui orders nats://host:4222/images --port 8080

  eventlog ui orders images --metrics :9464    (for Prometheus too)

  ssh -L 8080:127.0.0.1:8080 server eventlog ui orders --port 8080
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def ui(
    logs: Logs,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 0,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks.")
    ] = 1.0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    metrics: Metrics = None,
) -> None:
    """Show logs as a page: rates, lag, groups, dead letters, and a browser of events.

    It is served on this machine alone, until Ctrl-C; its address has a token that nobody else
    knows. It seeks, acknowledges, retries and drops, each after it has shown what that changes.
    """
    check_extra("ui", "`eventlog ui` needs")
    from eventlog.monitor.page import serving

    def tell(address: str) -> None:
        say_now(address)
        if open_browser:
            typer.launch(address)

    checked = [check_there(log) for log in logs]
    with serving.listen(port) as listener, metrics_at(metrics, *checked):
        serving.show(checked, listener, interval, tell)
