"""Statistics, groups and dead letters as text. Pure."""

from __future__ import annotations

import dataclasses
from collections import deque
from datetime import datetime
from typing import Any, Final

from rich.table import Table

from eventlog import DeadLetter, GroupReport
from eventlog.terminal.printing import cell
from eventlog.terminal.show import plain_event
from workers.stats import PoolStats

RATE_S: Final = 5.0
"""The rate is that of the last so many seconds."""


class Rate:
    """Events per second, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, handled: int) -> float:
        """So many events were handled by then; the rate."""
        if self._seen and handled < self._seen[-1][1]:
            self._seen.clear()  # another pool, which counts from 0
        self._seen.append((now_s, handled))
        # Whoever shows it more seldom than that still has two counts to compare.
        while len(self._seen) > 1 and now_s - self._seen[1][0] >= RATE_S:
            self._seen.popleft()
        first_s, first = self._seen[0]
        return (handled - first) / (now_s - first_s) if now_s > first_s else 0.0


def stats_fields(stats: PoolStats, rate: float) -> dict[str, Any]:
    """A pool as `--json` knows it."""
    fields = dataclasses.asdict(stats)
    workers = fields.pop("workers")
    return {**fields, "per_second": round(rate, 1), "workers": workers}


def stats_line(stats: PoolStats, rate: float | None = None) -> str:
    """A pool in one line."""
    per_second = "" if rate is None else f" ({rate:,.0f}/s)"
    return (
        f"handled {stats.handled:,}{per_second}, failed {stats.failed:,},"
        f" retried {stats.retried:,}, in flight {stats.in_flight:,}, lag {stats.lag:,}"
    )


def stats_table(title: str, stats: PoolStats, rate: float) -> Table:
    """A pool, worker by worker, and the sums below."""
    table = Table(title=cell(title), caption=stats_line(stats, rate), title_justify="left")
    for name in ("worker", "pid", "state", "handled", "restarts"):
        table.add_column(name, justify="left" if name == "state" else "right")
    for place, worker in enumerate(stats.workers):
        table.add_row(
            str(place),
            str(worker.pid),
            cell("busy", "green") if worker.busy else "idle",
            f"{worker.handled:,}",
            f"{worker.restarts:,}" if worker.restarts else "-",
        )
    return table


def groups_table(reports: list[GroupReport]) -> Table:
    """All groups of a log."""
    is_ordered = any(report.ordering for report in reports)
    table = Table("group", *["order"] * is_ordered)
    names = ("position", "lag", "in flight", "members", "redeliveries", "dead letters")
    for name in names:
        # A word in each line: so all fit into 80 columns.
        table.add_column(name.replace(" ", "\n"), justify="right")
    for report in reports:
        numbers = (getattr(report, name.replace(" ", "_")) for name in names)
        order = [report.ordering or "-"] * is_ordered
        table.add_row(cell(report.name), *order, *(f"{number:,}" for number in numbers))
    return table


def letter_fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as `--json` knows it."""
    fields = {name.name: getattr(letter, name.name) for name in dataclasses.fields(letter)}
    return {
        "group": fields.pop("group"),
        "seq_no": fields.pop("seq_no"),
        "failed_at": fields.pop("failed_at").isoformat(),
        **fields,
        "event": plain_event(letter.event),
    }


def time_text(moment: datetime) -> str:
    """In the time zone of here, for people."""
    return moment.astimezone().isoformat(" ", "seconds")


def letters_table(letters: list[DeadLetter], *, whole: bool) -> Table:
    """Dead letters, each in a line; their errors whole, or the first line of each."""
    table = Table("group")
    table.add_column("event", justify="right")
    for name in ("key", "deliveries", "failed at", "error"):
        table.add_column(name)
    for letter in letters:
        first, _, more = letter.error.partition("\n")
        table.add_row(
            cell(letter.group),
            str(letter.seq_no),
            cell("-" if letter.key is None else letter.key),
            str(letter.deliveries),
            time_text(letter.failed_at),
            cell(letter.error if whole else first + (" ..." if more else "")),
        )
    return table
