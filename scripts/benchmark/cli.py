"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmark import interrupts, machine, report, runner
from benchmark.processes import RunFailed
from benchmark.results import Result
from benchmark.settings import QUICK_REPEAT, REPEAT_DEFAULT, Settings
from benchmark.workloads import WORKLOADS
from benchmark.workloads.base import Workload
from eventlog import EventLogError

DESCRIPTION: Final = """\
Measure the log against multiprocessing.Queue, a pipe with msgpack, pyzmq and msgpack alone, in
interleaved rounds, and hold the medians of the ratios against the goals.
"""
EPILOG: Final = """\
workloads:
{workloads}

examples:
  scripts/bench                                all of it
  scripts/bench --quick                        a look in a minute: a tenth of the events, one round
  scripts/bench --only throughput --repeat 9   one workload, with more certainty
  scripts/bench --json today.json              keep every sample, with the facts of the machine
  scripts/bench --dir /dev/shm --durability memory

exit codes: 0 all goals reached, 1 one was missed or somebody failed, 2 wrong usage, 130 interrupted
"""
FAILED: Final = 1
FILE_WIDTH: Final = 120
"""Of the tables where no terminal sets it."""
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code."""
    asked = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    try:
        # One directory around all others: it is removed even if a signal comes while a run is
        # removing its own.
        with (
            interrupts.handled(),
            TemporaryDirectory(prefix="eventlog-bench-", dir=asked.dir) as place,
        ):
            is_good = _bench(asked, os.path.realpath(place), console)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; all processes and directories are gone")
        return INTERRUPTED
    except (RunFailed, EventLogError) as error:
        Console(stderr=True).print(f"a workload could not be prepared: {error}", markup=False)
        return FAILED
    return 0 if is_good else FAILED


def _bench(asked: argparse.Namespace, directory: str, console: Console) -> bool:
    """Measure what was asked for and report it; whether all is as it should be."""
    settings = Settings(
        directory=directory,
        repeat=asked.repeat or (QUICK_REPEAT if asked.quick else REPEAT_DEFAULT),
        is_quick=asked.quick,
        is_long=asked.long,
        durability=asked.durability,
    )
    workloads = [make() for make in WORKLOADS if not asked.only or make.name in asked.only]
    facts = machine.facts(settings)
    report.show_machine(console, facts, settings)
    results = list(_measured(workloads, settings, console))
    report.show_summary(console, results)
    if asked.json is not None:
        report.write_json(asked.json, results, facts, settings, sys.argv)
    return all(result.is_good for result in results)


def _measured(
    workloads: Sequence[Workload], settings: Settings, console: Console
) -> Iterator[Result]:
    """Each workload's result, shown as soon as it is there."""
    for workload in workloads:
        # The bar is gone before the table comes: they may share a terminal, or not.
        with _progress() as progress:
            bar = progress.add_task("")

            def announce(text: str, done: int, total: int) -> None:
                progress.update(bar, description=text, completed=done, total=total)  # noqa: B023

            result = runner.run(workload, settings, announce)
        report.show_result(console, workload, result)
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


def _parser() -> argparse.ArgumentParser:
    workloads = "\n".join(f"  {one.name:<12} {one.title}" for one in WORKLOADS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG.format(workloads=workloads),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", type=_writable, metavar="FILE", help="write all samples and facts there"
    )
    parser.add_argument(
        "--repeat", type=_positive, metavar="N", help=f"rounds (default {REPEAT_DEFAULT})"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORKLOAD",
        choices=[one.name for one in WORKLOADS],
        help="measure this one; may be given several times",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the events, and one round unless told"
    )
    parser.add_argument(
        "--long", action="store_true", help="also ten and a hundred million events: half an hour"
    )
    parser.add_argument(
        "--dir", type=_directory, metavar="DIR", help="where logs go (default: for temporary files)"
    )
    parser.add_argument(
        "--durability",
        choices=("memory", "disk", "sync"),
        default="disk",
        help="of the logs (default disk)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return number


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no directory")
    return path


def _writable(text: str) -> Path:
    """Refused now, rather than after minutes of measuring."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return path
