"""`eventlog bench`: what one log does on this machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eventlog.cli.app import EPILOG, app
from eventlog.config import AskedOptions, Durability
from eventlog.terminal.printing import print_table, say
from eventlog.terminal.show import to_json

EXAMPLES = """
[bold]Examples[/]

  eventlog bench

  eventlog bench --events 1000000 --dir /dev/shm --json
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def bench(
    events: Annotated[int, typer.Option(min=1000, help="Events for each throughput.")] = 200_000,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to make the log.", exists=True)
    ] = None,
    durability: Annotated[str, typer.Option(help="memory, disk or sync.")] = "disk",
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> None:
    """Measure a log on this machine: append, deliver, fan-out, latency, replay.

    Events are dicts of about 150 bytes. For a comparison with queues and pipes, see scripts/bench
    in the source tree.
    """
    from eventlog.demo.measure import Measurement

    checked: Durability = AskedOptions(durability=durability).durability or "disk"  # type: ignore[arg-type]
    work = Path(tempfile.mkdtemp(prefix="eventlog-bench-", dir=folder))
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("measuring", total=len(Measurement.STEPS))
            measurement = Measurement(str(work / "log"), events, checked)
            figures = measurement.run(lambda name: bar.update(task, advance=1, description=name))
    finally:
        shutil.rmtree(work)
    if as_json:
        say(to_json({"events": events, "durability": checked, "figures": figures}))
        return
    table = Table("what", "figure", "unit")
    for name, (figure, unit) in figures.items():
        table.add_row(name, f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}", unit)
    print_table(table)
