"""The progress bar of a pool, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio

from workers.stats import PoolStats

REFRESH_S = 0.2


async def show_progress(stats: Callable[[], PoolStats], group: str) -> None:
    """Draw a bar on standard error until cancelled; nothing, if that is no terminal."""
    if not sys.stderr.isatty():
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),  # a group's name may have brackets
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        task = progress.add_task(group, total=None, rate="")
        while True:
            now = stats()
            seconds = progress.tasks[0].elapsed or 0.0
            rate = f"{now.handled / seconds:,.0f}/s" if seconds else ""
            if now.failed:
                rate += f", {now.failed} failed"
            total = now.handled + now.lag
            progress.update(task, completed=now.handled, total=total, rate=rate)
            progress.refresh()
            await anyio.sleep(REFRESH_S)
