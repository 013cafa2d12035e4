"""The command line of `scripts/soak`."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chaos.engine_soak import EngineSoak
from chaos.keeping import Outcome
from chaos.roles import ROLES
from chaos.soak import Soak
from chaos.surroundings import SURROUNDINGS
from tests.servers import KINDS

EPILOG = """
[bold]Examples[/]

  scripts/soak --minutes 10

  scripts/soak --minutes 1 --seed 7 --json soak.json

  scripts/soak --on valkey
"""
VIOLATIONS_SHOWN = 20

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True, epilog=EPILOG)
def soak(
    context: typer.Context,
    *,
    on: Annotated[
        str | None,
        typer.Option(help=f"Over a server, not local logs: {', '.join(sorted(KINDS))}."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long faults happen.")] = 10.0,
    seed: Annotated[int | None, typer.Option(help="Which faults; random by default.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", exists=True, help="Where logs go.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures there.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep logs and records.")] = False,
) -> None:
    """Let everything fail at once, and prove that nothing was lost, doubled or reordered.

    Producers, consumers and pools on seven logs, with SIGKILL, SIGSTOP, clients that talk garbage
    or never read, retention, and a full file system (where this user may mount one). Handlers spoil
    their events, fork, and outlast their pools, which are left and entered again; programs run
    without standard streams or with somebody else who waits for their children; a log is deleted
    and made anew, the clock of another jumps, and letters outlive their events. Exits with 1 if a
    promise was broken.

    With --on, one log on a server of its own: that is killed and started again, and stopped;
    connections break and fall silent; roles and workers are killed. Pools run on hosts of their
    own (where this user may make networks), which are killed, and cut off for a while.
    """
    if context.invoked_subcommand is not None:
        return
    if on is not None and on not in KINDS:
        raise typer.BadParameter(f"there is no server {on!r}", param_hint="--on")
    chosen = random.randrange(2**32) if seed is None else seed
    work = Path(tempfile.mkdtemp(prefix="eventlog-soak-", dir=folder))
    console = Console(stderr=True)
    console.print(f"seed {chosen}, in {work}")
    try:
        one = Soak(work / "soak", chosen) if on is None else EngineSoak(work / "soak", chosen, on)
        outcome = _run(one, minutes * 60, console)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    facts = {"seed": chosen, "kills": outcome.kills, **dataclasses.asdict(outcome)}
    if as_json is not None:
        as_json.write_text(json.dumps(facts, indent=2) + "\n")
    _show(outcome)
    raise typer.Exit(1 if outcome.violations else 0)


def _run(one: Soak | EngineSoak, seconds: float, console: Console) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("soaking", total=seconds)
        started = time.monotonic()

        def tick() -> None:
            faults = one.faults_so_far
            done = time.monotonic() - started
            bar.update(task, completed=done, description=f"{faults} faults")

        return trio.run(one.run, seconds, tick)


def _show(outcome: Outcome) -> None:
    table = Table("what", "figure")
    rows: dict[str, object] = {
        "events stored": outcome.events,
        "events seen by consumers": outcome.seen,
        "events handled by pools": outcome.handled,
        "dead letters": outcome.dead,
        "dead letters handled in the end": outcome.retried,
        **dict(sorted(outcome.faults.items())),
        "kills in all": outcome.kills,
        "most memory of a writer, MiB": round(outcome.writer_mib),
        "most descriptors of a writer": outcome.writer_descriptors,
        "most maps of a writer": outcome.writer_maps,
        "violations": len(outcome.violations),
    }
    for name, figure in rows.items():
        table.add_row(name, f"{figure:,}")
    console = Console(highlight=False)
    console.print(table)
    for violation in outcome.violations[:VIOLATIONS_SHOWN]:
        console.print(violation, markup=False)


@app.command(hidden=True, context_settings={"ignore_unknown_options": True})
def role(kind: str, surroundings: str, arguments: list[str]) -> None:
    """What `soak` starts in processes of their own."""
    SURROUNDINGS[surroundings]()
    ROLES[kind](*arguments)
