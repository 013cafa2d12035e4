"""`eventlog demo`: the whole on real files, with live progress and a check at the end."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eventlog.cli.address import check_usable
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.demo.main_job import MainJob, Report, python_files, standard_library
from eventlog.demo.shared import GROUP, PoolReport
from eventlog.terminal.printing import cell, complain, print_table, say, say_styled
from eventlog.terminal.show import to_json

EXAMPLES = """
[bold]Examples[/]

  eventlog demo

  eventlog demo ~/src/project --consumers 4

  eventlog demo --keep && eventlog tail DIRECTORY/log -n 1

  eventlog demo --on nats://127.0.0.1:4222/demo
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Files to use; by default the source tree of this Python.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    consumers: Annotated[int, typer.Option(min=1, max=32, help="Subscriber processes.")] = 3,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Workers of the pool.")] = 2,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A new log to use, which stays: a directory, or an engine's address.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the log, and say where.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Append every Python file below a folder; let processes parse them; kill some half-way.

    Independent consumers parse all of the files each, and the workers of a pool share them. A
    consumer is killed, started again, and resumes after its last acknowledged event; a worker is
    killed, and the pool gives what it had in its hands to another one. At the end everybody's own
    record is held against the files: each consumer must have seen all, in order, and the pool must
    have handled every one.
    """
    files = python_files(folder) if folder else standard_library()
    work = Path(tempfile.mkdtemp(prefix="eventlog-demo-"))
    try:
        log = str(work / "log") if on is None else check_usable(on)
        report = _run(work, log, files, consumers, workers)
    finally:
        if not keep:
            shutil.rmtree(work)
    if as_json:
        say(to_json({"right": report.is_right, **dataclasses.asdict(report)}))
    else:
        _show(report)
    if keep:
        complain(f"kept: {work}")
    if not report.is_right:
        raise typer.Exit(FAILED)


def _run(work: Path, log: str, files: list[Path], consumers: int, workers: int) -> Report:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        names = ["append", *(f"parser-{number}" for number in range(1, consumers + 1)), GROUP]
        tasks = {name: progress.add_task(name, total=len(files)) for name in names}

        def show(name: str, done: int) -> None:
            progress.update(tasks[name], completed=done)

        return MainJob(work, log, files, consumers, workers, show).run()


def _show(report: Report) -> None:
    table = Table("consumer", "position", "lag", "lives", "redelivered", "unparsable", "check")
    for consumer in report.consumers:
        check = cell(consumer.fault or "all, in order", "red" if consumer.fault else "green")
        table.add_row(
            cell(consumer.name),
            f"{consumer.position:,}",
            f"{consumer.lag:,}",
            str(consumer.lives),
            str(consumer.redelivered),
            str(consumer.unparsable),
            check,
        )
    print_table(table)
    delivered = report.events * len(report.consumers) / report.seconds
    say(
        f"{report.events:,} events, {report.bytes / 1e6:,.1f} MB, appended in"
        f" {report.append_seconds:.1f} s ({report.events / report.append_seconds:,.0f}/s);"
        f" parsed {len(report.consumers)} times in {report.seconds:.1f} s ({delivered:,.0f}/s)"
    )
    if report.killed is not None:
        say(
            f"{report.killed} was killed half-way and resumed at event {report.resumed_at:,},"
            " the one after its last acknowledged"
        )
    if report.pool is not None:
        _show_pool(report.pool)
    is_right = all(consumer.fault is None for consumer in report.consumers)
    verdict = ("every", "green") if is_right else ("NOT every", "red")
    say_styled(verdict, " consumer saw every event in order")


def _show_pool(pool: PoolReport) -> None:
    fault = (f": {pool.fault}", "red") if pool.fault is not None else " handled every event"
    say_styled(
        f"the pool of {pool.workers} workers",
        fault,
        f"; worker {pool.killed_pid} was killed half-way, {pool.restarts} started in its place,"
        f" {pool.repeated} event(s) handled again",
    )
