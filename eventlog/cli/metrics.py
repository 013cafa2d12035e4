"""The option `--metrics` of commands that stay: metrics of logs for Prometheus."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer

from eventlog.api.extras import check_extra

Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Serve the log's metrics for Prometheus there; :PORT is for this machine alone.",
    ),
]


def metrics_at(place: str | None, *logs: str) -> AbstractContextManager[object]:
    """Serve metrics of the logs in its block, if there is a place to serve them at.

    Raises:
        InvalidArgument: the place is none, or something else is served there.
        NotSupported: the library for it is not installed.
    """
    if place is None:
        return nullcontext()
    check_extra("metrics", "--metrics needs")
    from eventlog.monitor.metrics import serving_metrics

    return serving_metrics(logs, place)
