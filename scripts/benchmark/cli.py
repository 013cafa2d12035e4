"""The command line of the benchmark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmark import charts as charts_of
from benchmark import check as guard
from benchmark import interrupts, machine, report, runner
from benchmark.processes import RunFailed
from benchmark.results import Result
from benchmark.settings import QUICK_REPEAT, REPEAT_DEFAULT, Durability, Settings
from benchmark.systems.base import first_missing
from benchmark.workloads import WORKLOADS
from benchmark.workloads.base import Workload
from eventlog import EventLogError

LIST: Final = "\n\n".join(f"  {one.name:<11} {one.title}" for one in WORKLOADS)
EPILOG: Final = f"""
[bold]Workloads[/]

{LIST}

[bold]Examples[/]

  scripts/bench                                all of it

  scripts/bench --quick                        a look: a tenth of the events, one round

  scripts/bench --only throughput --repeat 9   one workload, with more certainty

  scripts/bench --json today.json              keep every sample, with the facts of the machine

  scripts/bench --check --only fan-out         did a change make anything worse?

  scripts/bench --dir /dev/shm --durability memory

[bold]Exit codes[/]

  0 all goals reached (with --check: nothing got worse), 1 one was missed or somebody failed,
  2 wrong usage, 130 interrupted
"""
FAILED: Final = 1
FILE_WIDTH: Final = 150
"""Width of the tables where no terminal sets it."""
INTERRUPTED: Final = 130

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog=EPILOG)
def bench(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="WORKLOAD", help="Measure this one; may be given several times."),
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help=f"Rounds (default {REPEAT_DEFAULT}).")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the events, and one round unless told.")
    ] = False,
    is_long: Annotated[
        bool, typer.Option("--long", help="Also ten and a hundred million events: half an hour.")
    ] = False,
    place: Annotated[
        Path | None,
        typer.Option("--dir", exists=True, file_okay=False, help="Where logs go."),
    ] = None,
    durability: Annotated[str, typer.Option(help="Of the logs: memory, disk or sync.")] = "disk",
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, writable=True, help="Write all samples and facts there."),
    ] = None,
    charts: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write charts there, as PNG and SVG."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say which ratios are worse than the recorded ones.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Record the ratios of this run, for --check.")
    ] = False,
) -> None:
    """Measure the log against its alternatives and against what the machine can do at best.

    All contenders of a workload run in one go, in interleaved rounds, and the ratios of their
    medians are held against the goals. A peer that is not installed is said to be missing.
    """
    known = {one.name: one for one in WORKLOADS}
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise typer.BadParameter(f"no workload {unknown[0]!r}; there are {', '.join(known)}")
    if durability not in ("memory", "disk", "sync"):
        raise typer.BadParameter("give memory, disk or sync", param_hint="--durability")
    if json is not None and not json.parent.is_dir():  # rather than after minutes of measuring
        raise typer.BadParameter(f"{json.parent} is no directory", param_hint="--json")
    if charts is not None and (why := first_missing("matplotlib")):
        raise typer.BadParameter(f"{why}; it is in the extra `plot`", param_hint="--charts")
    asked = Asked(
        workloads=[make() for make in WORKLOADS if not only or make.name in only],
        repeat=repeat or (QUICK_REPEAT if quick else REPEAT_DEFAULT),
        is_quick=quick,
        is_long=is_long,
        place=place,
        durability=_durability(durability),
        json=json,
        charts=charts,
        is_check=check,
        is_recorded=record,
    )
    raise typer.Exit(_code_of(asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line, checked."""

    workloads: Sequence[Workload]
    repeat: int
    is_quick: bool
    is_long: bool
    place: Path | None
    durability: Durability
    json: Path | None
    charts: Path | None
    is_check: bool
    is_recorded: bool


def _code_of(asked: Asked) -> int:
    """Measure and report; the exit code."""
    try:
        # One directory around all others: it is removed even if a signal comes while a run is
        # removing its own.
        with (
            interrupts.handled(),
            TemporaryDirectory(prefix="eventlog-bench-", dir=asked.place) as directory,
        ):
            return 0 if _bench(asked, os.path.realpath(directory)) else FAILED
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; all processes and directories are gone")
        return INTERRUPTED
    except (RunFailed, EventLogError) as error:
        Console(stderr=True).print(f"a workload could not be prepared: {error}", markup=False)
        return FAILED


def _bench(asked: Asked, directory: str) -> bool:
    """Measure what was asked for and report it; whether all is as it should be."""
    settings = Settings(
        directory=directory,
        repeat=asked.repeat,
        is_quick=asked.is_quick,
        is_long=asked.is_long,
        durability=asked.durability,
    )
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    facts = machine.facts(settings)
    report.show_machine(console, facts, settings)
    results = list(_measured(asked, settings, console))
    report.show_summary(console, results)
    if asked.json is not None:
        report.write_json(asked.json, results, facts, settings, sys.argv)
    is_good = _guarded(results, console) if asked.is_check else all(one.is_good for one in results)
    if asked.is_recorded:
        guard.write(results, _place_of(facts))
    return is_good


def _durability(text: str) -> Durability:
    return {"memory": "memory", "sync": "sync"}.get(text, "disk")  # type: ignore[return-value]


def _place_of(facts: dict[str, Any]) -> str:
    return "{cores} cores, Linux {kernel}, {python}, commit {commit}".format_map(facts)


def _guarded(results: Sequence[Result], console: Console) -> bool:
    """Say what got worse; whether nothing did, and nobody failed."""
    recorded = guard.read()
    if not any(result.name in recorded for result in results):
        console.print("\nNothing is recorded of these workloads: use --record first.", style="red")
        return False
    changes = guard.worse(recorded, guard.ratios_of(results))
    report.show_check(console, changes, guard.unmeasured(recorded, results))
    failed = any(one.failed for result in results for one in result.series)
    return not changes and not failed


def _measured(asked: Asked, settings: Settings, console: Console) -> Iterator[Result]:
    """Each workload's result, shown as soon as it is there."""
    for workload in asked.workloads:
        # The bar is gone before the table comes: they may share a terminal, or not.
        with _progress() as progress:
            bar = progress.add_task("")

            def announce(text: str, done: int, total: int) -> None:
                progress.update(bar, description=text, completed=done, total=total)  # noqa: B023

            result = runner.run(workload, settings, announce)
        report.show_result(console, workload, result)
        if asked.charts is not None:
            charts_of.write(asked.charts, workload, result)
        yield result


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Measure and report.

    Raises:
        SystemExit: always, with the exit code.
    """
    app(arguments, prog_name="scripts/bench")
    raise AssertionError("the command line exits by itself")
