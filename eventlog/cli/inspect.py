"""`status` and `verify`: what a log is, and whether it is whole. Neither needs a writer."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.api.statistics import WriterStatistics
from eventlog.cli.address import Log, LogFiles, check_directory, check_there
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.config import AskedOptions
from eventlog.errors import CorruptLog, NotALog, NotSupported
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.onlooker import running_statistics
from eventlog.local.rendezvous import writers_locked_out
from eventlog.local.storage.control import check_is_log
from eventlog.local.storage.files import FILES
from eventlog.local.storage.reading.reader import LogReader
from eventlog.terminal.printing import cell, print_table, say
from eventlog.terminal.show import to_json
from eventlog.tools.repair import Repair, repair_log
from eventlog.tools.survey import segments_in
from eventlog.tools.verify import Verification, verify_log

AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]


@app.command(epilog="[bold]Example[/]\n\n  eventlog status orders --json\n\n" + EPILOG)
def status(log: Log, as_json: AsJson = False) -> None:
    """Say who serves a log, what it holds, how it is made, and what its writer has counted.

    Starts no writer for a directory.
    """
    report, counted = (_status_of_files if is_directory(check_there(log)) else _status_of)(log)
    statistics = None if counted is None else dataclasses.asdict(counted)
    if as_json:
        say(to_json({**report, "statistics": statistics}))
        return
    _print_fields(report)
    if statistics is not None:
        say("\nits writer, since it started:")
        _print_fields(statistics)


Found = tuple[dict[str, object], WriterStatistics | None]


def _status_of_files(log: str) -> Found:
    handle = LocalHandle(log, AskedOptions())
    handle.open()
    try:
        report = dataclasses.asdict(handle.status(0))
        del report["connections"]  # the writer counts them
        return {**report, **handle.options.to_dict()}, running_statistics(handle)
    finally:
        handle.close()


def _status_of(log: str) -> Found:
    with blocking.open(log) as opened:
        report = dataclasses.asdict(opened.status())
        try:
            return report, opened.statistics().writer
        except NotSupported:
            return report, None


def _print_fields(fields: dict[str, object]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in fields.items():
        table.add_row(cell(name, "bold"), cell(_shown(value)))
    print_table(table)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_shown(item)}" for name, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if value > 99_999 else str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


VERIFY_EXAMPLES = """
[bold]Examples[/]

  eventlog verify orders || restore-backup

  eventlog verify orders --json | jq .problems

  eventlog verify --repair orders             (when no writer serves it)

[bold]What --repair does[/]

  It cuts a torn tail, makes indexes, segment headers, the control page and the offset table again
  where they can be derived, and keeps a copy of whatever it changes, NAME.damaged. Events that are
  damaged in the middle stay reported, by their numbers; `eventlog export --skip-damaged` saves all
  the others.
"""
VERIFY_EPILOG = (
    "Exit codes: 0 sound, 1 damaged or not all mended, 2 wrong usage, no log there, or --repair"
    " while a writer serves it."
)


@app.command(epilog=VERIFY_EXAMPLES + "\n\n" + VERIFY_EPILOG)
def verify(
    log: LogFiles,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every checksum and every number of a log; exit code 1 if anything is damaged.

    Without --repair nothing is changed, and a writer may be at work.
    """
    directory = check_directory(log, "verify")
    report = _repaired(directory) if repair else None
    found = _verified(directory)
    _report(log, found, report, as_json=as_json)
    if not found.is_whole or (report is not None and report.lost):
        raise typer.Exit(FAILED)


def _repaired(directory: str) -> Repair:
    if not segments_in(directory, FILES):
        check_is_log(directory)
    with writers_locked_out(directory):
        return repair_log(directory)


def _verified(directory: str) -> Verification:
    try:
        reader = LogReader(directory)
    except (CorruptLog, NotALog) as error:
        if not segments_in(directory, FILES):
            raise
        return Verification(problems=[str(error)])
    console = Console(stderr=True, highlight=False)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("verifying", total=reader.last_seq_no)
            return verify_log(reader, lambda done, _: bar.update(task, completed=done))
    finally:
        reader.close()


def _report(log: str, found: Verification, repair: Repair | None, *, as_json: bool) -> None:
    if as_json:
        report = {"whole": found.is_whole, **dataclasses.asdict(found)}
        if repair is not None:
            report["repair"] = dataclasses.asdict(repair)
        say(to_json(report))
        return
    if repair is not None:
        _report_repair(repair)
    for problem in found.problems:
        say(f"damaged: {problem}")
    for note in found.notes:
        say(f"note: {note}")
    verdict = "whole" if found.is_whole else "damaged"
    say(
        f"{log}: {verdict}: {found.events:,} events in {found.batches:,} batches and"
        f" {found.segments:,} segments checked"
    )


def _report_repair(repair: Repair) -> None:
    for text in repair.done:
        say(f"mended: {text}")
    for text in repair.lost:
        say(f"lost: {text}")
    for name in repair.kept:
        say(f"kept: {name}, as it was before")
    if not repair.done and not repair.lost:
        say("there was nothing to mend")
