"""`status` and `verify`: what a log is, and whether it is whole. Neither needs a writer."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.show import to_json
from eventlog.client.local import LocalHandle
from eventlog.config import AskedOptions
from eventlog.storage.control import check_is_log
from eventlog.storage.reader import LogReader
from eventlog.storage.verify import Verification, verify_log

Log = Annotated[str, typer.Argument(help="The log's directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]


@app.command(epilog="[bold]Example[/]\n\n  eventlog status orders --json\n\n" + EPILOG)
def status(log: Log, as_json: AsJson = False) -> None:
    """Say who serves a log, what it holds and how it is made. Starts no writer."""
    check_is_log(log)
    handle = LocalHandle(log, AskedOptions())
    handle.open()
    try:
        report = dataclasses.asdict(handle.status(0))
        options = handle.options.to_dict()
    finally:
        handle.close()
    del report["connections"]  # only the writer knows, and nobody asks it here
    if as_json:
        typer.echo(to_json({**report, **options}))
        return
    table = Table(show_header=False, box=None)
    for name, value in {**report, **options}.items():
        table.add_row(f"[bold]{name}", _shown(value))
    Console(highlight=False).print(table)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_shown(item)}" for name, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value > 99_999 else str(value)
    return "-" if value is None else str(value)


@app.command(epilog="[bold]Example[/]\n\n  eventlog verify orders || restore-backup\n\n" + EPILOG)
def verify(log: Log, as_json: AsJson = False) -> None:
    """Check every checksum and every number of a log; exit code 1 if anything is damaged."""
    reader = LogReader(os.path.abspath(log))
    console = Console(stderr=True, highlight=False)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("verifying", total=reader.last_seq_no)
            found = verify_log(reader, lambda done, _: bar.update(task, completed=done))
    finally:
        reader.close()
    _report(log, found, as_json=as_json)
    if not found.is_whole:
        raise typer.Exit(FAILED)


def _report(log: str, found: Verification, *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"whole": found.is_whole, **dataclasses.asdict(found)}))
        return
    for problem in found.problems:
        typer.echo(f"damaged: {problem}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    verdict = "whole" if found.is_whole else "damaged"
    typer.echo(
        f"{log}: {verdict}: {found.events:,} events in {found.batches:,} batches and"
        f" {found.segments:,} segments checked"
    )
