"""Views of logs as text: a line a second, and tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from rich.table import Table

from eventlog.monitor.views import GroupView, LogView, ReaderView, WriterView
from eventlog.terminal.printing import cell, clean

BARS: Final = " ▁▂▃▄▅▆▇█"
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def line_of(view: LogView) -> str:
    """A log in one line, for pipes: what nobody knows is left out."""
    parts = [
        f"{view.taken_at.astimezone():%H:%M:%S} {clean(view.path)}",
        f"in {rate(view.appended_per_s)}",
        f"last {number(view.last_seq_no)}",
        f"stored {size(view.bytes)}",
    ]
    if view.consumers:
        parts.append(_worst("consumers", view.consumers))
    if view.groups:
        in_flight = sum(one.in_flight for one in view.groups)
        dead = sum(one.dead_letters for one in view.groups)
        parts += [_worst("groups", view.groups), f"in flight {in_flight:,}", f"dead {dead:,}"]
    if view.writer is not None:
        parts.append(writer_line(view.writer))
    return "  ".join(parts)


def _worst(what: str, readers: tuple[ReaderView, ...]) -> str:
    worst = max(readers, key=lambda one: one.lag)
    behind = f", most behind {clean(worst.name)} by {worst.lag:,}" if worst.lag else ""
    return f"{what} {len(readers)}{behind}"


def writer_line(writer: WriterView) -> str:
    """The writer in a few words."""
    parts = [f"writer {writer.pid}"]
    if writer.cpu_percent is not None:
        parts.append(f"{writer.cpu_percent:.0f} %")
    if writer.rss_bytes is not None:
        parts.append(size(writer.rss_bytes))
    if writer.syncs_per_s is not None:
        parts.append(f"{writer.syncs_per_s:.0f} syncs/s")
    if writer.mean_sync_s is not None:
        parts.append(f"of {1000 * writer.mean_sync_s:.1f} ms")
    return " ".join(parts)


def log_table(views: list[LogView]) -> Table:
    """A line for each log."""
    table = Table("log", "in", "trend", "last", "first", "stored", "writer")
    for view in views:
        table.add_row(
            cell(view.path),
            rate(view.appended_per_s),
            sparkline(view.trend),
            number(view.last_seq_no),
            number(view.first_seq_no),
            size(view.bytes),
            "-" if view.writer is None else writer_line(view.writer),
        )
    return table


READER_COLUMNS: Final = ("reader", "position", "lag", "trend", "behind", "out", "caught up in")
GROUP_COLUMNS: Final = ("in flight", "again", "dead", "members")


def reader_table(view: LogView) -> Table:
    """A line for each consumer and each group of a log."""
    table = Table(*READER_COLUMNS, *GROUP_COLUMNS)
    for one in view.readers:
        table.add_row(*map(cell, reader_cells(one)))
    return table


def reader_cells(one: ReaderView) -> list[str]:
    """A consumer or a group in the columns of `READER_COLUMNS` and `GROUP_COLUMNS`."""
    cells = [
        one.name,
        f"{one.position:,}",
        f"{one.lag:,}",
        sparkline(one.trend),
        duration(one.lag_s),
        rate(one.acked_per_s),
        duration(one.catch_up_s) if one.lag else "-",
    ]
    if not isinstance(one, GroupView):
        return [*cells, "", "", "", ""]
    counts = (one.in_flight, one.redeliveries, one.dead_letters, one.members)
    return [*cells, *(f"{count:,}" for count in counts)]


def sparkline(values: tuple[int, ...], width: int = 12) -> str:
    """The last values as bars, the highest of them full."""
    shown = values[-width:]
    top = max(shown, default=0)
    return "".join(BARS[-(-value * (len(BARS) - 1) // top)] if top else BARS[0] for value in shown)


def number(value: int | None) -> str:
    """A number of an event."""
    return "-" if value is None else f"{value:,}"


def rate(value: float | None) -> str:
    """Events a second."""
    if value is None:
        return "-"
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def size(count: float) -> str:
    """Bytes in the largest unit of which there is one."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return (
        f"{count:.0f} {UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {UNITS[unit]}"
    )


def duration(seconds: float | None) -> str:
    """A time as `1.2 s`, `4:05`, `3:12:00` or `2 days, 3:12:00`; `-` for one that nobody knows."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds else "0 s"
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0")
