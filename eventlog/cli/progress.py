"""How far a command is that goes through many events, for whoever looks at the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")


def shown(batches: Iterator[list[T]], total: int | None, *, is_quiet: bool) -> Iterator[list[T]]:
    """The same batches; a terminal sees how far it is."""
    console = Console(stderr=True)
    if not console.is_terminal or is_quiet:
        yield from batches
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} events"),
        *((BarColumn(),) if total else ()),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("events", total=total)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))
