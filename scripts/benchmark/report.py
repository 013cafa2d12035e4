"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.check import Change
from benchmark.machine import BUSY_LOAD
from benchmark.results import Result, Series, Verdict, ratio_to
from benchmark.settings import Settings
from benchmark.workloads.base import Column, Workload

FORMAT: Final = 1
"""Format of the JSON; raised when a field changes its meaning."""


def show_machine(console: Console, facts: Mapping[str, Any], settings: Settings) -> None:
    """What runs where, in three lines at most."""
    versions = ", ".join(f"{name} {found}" for name, found in facts["versions"].items() if found)
    console.print(
        f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, {facts['python']};"
        f" {facts['directory']} ({facts['file_system']}), durability {settings.durability}",
        highlight=False,
    )
    console.print(versions, style="dim", highlight=False)
    if facts["load_before"] > BUSY_LOAD:
        console.print(
            f"The machine was busy before this began (load {facts['load_before']:.1f}):"
            " expect smaller and less certain numbers.",
            style="yellow",
        )


def show_result(console: Console, workload: Workload, result: Result) -> None:
    """The table of a workload, that of its goals, and what failed."""
    console.print()
    console.print(result.title, style="bold")
    if workload.note:
        console.print(workload.note, style="dim")
    console.print(_table_of(result.series, workload.columns, workload.compared))
    if any(verdict.value is not None for verdict in result.verdicts):
        console.print(_goals_of(result.verdicts))
    for one in result.series:
        if one.missing is not None:
            console.print(f"{one.name} is missing: {one.missing}", style="yellow", markup=False)
        if one.failed is not None:
            console.print(f"{one.name} failed: {_last_line(one.failed)}", style="red", markup=False)


def _last_line(text: str) -> str:
    """What was raised, out of a traceback; all of it is in the JSON."""
    first, *rest = text.strip().splitlines()
    return f"{first} {rest[-1]}" if rest else first


def _table_of(series: Sequence[Series], columns: Sequence[Column], compared: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("median", no_wrap=True)
    for column in columns:
        table.add_column(column.header, justify="right", no_wrap=True)
    if compared:
        table.add_column("of the first", justify="right", no_wrap=True)
    if columns and any(len(one.samples) > 1 for one in series):
        table.add_column("spread", justify="right", no_wrap=True)
    for one in series:
        table.add_row(*_row_of(one, columns, compared, series[0]))
    return table


def _row_of(one: Series, columns: Sequence[Column], compared: str, first: Series) -> list[Text]:
    if not one.samples:
        return [Text(one.name), Text("missing" if one.missing else "failed", style="yellow")]
    medians = one.medians()
    cells = [Text(one.name)]
    cells += [_number(medians.get(column.figure), column.decimals) for column in columns]
    if compared:
        cells.append(_number(ratio_to(one, first, compared), 2))
    if len(one.samples) > 1:
        cells.append(Text(_spread(one.values(columns[0].figure)), style="dim"))
    return cells


def _number(value: float | None, decimals: int) -> Text:
    return Text("" if value is None else f"{value:,.{decimals}f}")


def _spread(values: list[float]) -> str:
    """How far the rounds lie apart, in percent of their mean."""
    mean = sum(values) / len(values)
    return f"{(max(values) - min(values)) / mean:.0%}" if mean else ""


def _goals_of(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("compared", no_wrap=True)
    for header in ("value", "from", "to", "goal"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for verdict in verdicts:
        numbers = (verdict.value, verdict.lowest, verdict.highest)
        cells = [Text("" if number is None else f"{number:,.2f}") for number in numbers]
        table.add_row(Text(verdict.text), *cells, Text(verdict.limit), _word_for(verdict))
    return table


def _word_for(verdict: Verdict) -> Text:
    if verdict.value is None:
        return Text("not measured", style="yellow")
    if verdict.is_reached is None:
        return Text("")
    return Text("reached", style="green") if verdict.is_reached else Text("missed", style="red")


def show_check(console: Console, changes: Sequence[Change], unmeasured: Sequence[Change]) -> None:
    """What got worse than it was recorded, and what could not be compared."""
    console.print()
    for change in changes:
        console.print(
            f"worse: {change.workload}: {change.text}: {change.before:.2f} was recorded,"
            f" {change.now:.2f} now (tolerance {change.tolerance:.0%})",
            style="red",
            markup=False,
        )
    for change in unmeasured:
        console.print(
            f"not measured: {change.workload}: {change.text}: {change.before:.2f} was recorded",
            style="yellow",
            markup=False,
        )
    console.print("Something got worse." if changes else "Nothing got worse.", style="bold")


def show_summary(console: Console, results: Sequence[Result]) -> None:
    """One line for all."""
    judged = [v.is_reached for result in results for v in result.verdicts if v.limit]
    failed = sum(one.failed is not None for result in results for one in result.series)
    console.print()
    console.print(
        f"{judged.count(True)} goals reached, {judged.count(False)} missed,"
        f" {judged.count(None)} not measured; {failed} contenders failed.",
        style="bold",
    )


def write_json(
    path: Path,
    results: Sequence[Result],
    facts: Mapping[str, Any],
    settings: Settings,
    command: Sequence[str],
) -> None:
    """Everything that was measured, in one file that appears whole or not at all."""
    document = {
        "format": FORMAT,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "settings": {
            "repeat": settings.repeat,
            "is_quick": settings.is_quick,
            "durability": settings.durability,
        },
        "machine": dict(facts),
        "is_good": all(result.is_good for result in results),
        "workloads": [result.to_dict() for result in results],
    }
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(path)
