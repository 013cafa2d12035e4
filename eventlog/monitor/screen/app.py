"""The screen: a line for each log, its readers below, the workers of a group below those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Static

from eventlog.errors import EventLogError
from eventlog.monitor.preview import preview_seek
from eventlog.monitor.screen.dialogs import Asked, Confirmed, Told, shown
from eventlog.monitor.screen.events import Events
from eventlog.monitor.screen.letters import Letters
from eventlog.monitor.screen.watching import Watched
from eventlog.monitor.text import (
    GROUP_COLUMNS,
    READER_COLUMNS,
    duration,
    number,
    rate,
    reader_cells,
    size,
    sparkline,
    writer_line,
)
from eventlog.monitor.views import GroupView, LogView, ReaderView
from eventlog.terminal.positions import position_of

LOG_COLUMNS = ("log", "in", "trend", "last", "stored", "writer")
WORKER_COLUMNS = ("worker", "handled", "out", "failed", "in flight", "busy for")
SORTS: dict[str, Callable[[ReaderView], Any]] = {
    "lag": lambda one: -one.lag,
    "name": lambda one: one.name,
    "rate": lambda one: -(one.acked_per_s or 0.0),
}
HELP = """\
Up, Down, Tab    choose a log, a reader, a worker
s                sort readers by lag, name or rate
/                show only readers whose name has this in it
space            pause, and go on
e                the events of the log
k                seek: move the reader to a number, a time, "15m" ago, beginning or latest
a                acknowledge everything up to a number
l                dead letters of the group: tracebacks, retry, drop
q                leave

out              events acknowledged a second, over the last five seconds
behind           the age of the oldest event that is not acknowledged
caught up in     when the lag is 0, if all goes on as now
again            deliveries after the first one of an event"""


class Top(App[None]):
    """The screen of `eventlog top`."""

    TITLE = "eventlog top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "events", "Events"),
        Binding("k", "seek", "Seek"),
        Binding("a", "ack", "Ack"),
        Binding("l", "letters", "Dead letters"),
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("space", "pause", "Pause"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]
    CSS = """
    #logs { height: auto; max-height: 30%; }
    #readers { height: 1fr; }
    #workers { height: auto; max-height: 30%; display: none; }
    #state { height: 1; color: $text-muted; }
    """

    def __init__(self, logs: list[Watched], interval_s: float) -> None:
        super().__init__()
        self._logs = logs
        self._interval_s = interval_s
        self._sort = "lag"
        self._filter = ""
        self._is_paused = False
        self._is_looking = False

    def compose(self) -> ComposeResult:
        """The tables."""
        yield DataTable(id="logs", cursor_type="row")
        yield DataTable(id="readers", cursor_type="row")
        yield DataTable(id="workers", cursor_type="row")
        yield Static(id="state")
        yield Footer()

    def on_mount(self) -> None:
        """Look at the logs from now on."""
        for name, columns in (
            ("logs", LOG_COLUMNS),
            ("readers", (*READER_COLUMNS, *GROUP_COLUMNS)),
            ("workers", WORKER_COLUMNS),
        ):
            table = self._table(name)
            for column in columns:
                table.add_column(column, key=column)
        self._table("readers").focus()
        self._look()
        self.set_interval(self._interval_s, self._look)

    def _look(self) -> None:
        """Look at the logs, unless the last look still goes on."""
        if not (self._is_paused or self._is_looking):
            self._is_looking = True
            self._look_in_thread()

    @work(thread=True)
    def _look_in_thread(self) -> None:
        for watched in self._logs:
            watched.look()
        self._is_looking = False
        self.call_from_thread(self._draw)

    # --- what is drawn ---------------------------------------------------------------------------

    def _table(self, name: str) -> DataTable[Any]:
        return self.query_one(f"#{name}", DataTable)

    def _draw(self) -> None:
        if len(self.screen_stack) > 1 or not self.query("#logs"):  # a question, or the end
            return
        views = [one.view for one in self._logs if one.view is not None]
        _fill(self._table("logs"), [(view.path, _log_cells(view)) for view in views])
        self._draw_readers()

    def _draw_readers(self) -> None:
        view = self.chosen_log().view
        readers = [] if view is None else [*view.readers]
        readers = [one for one in readers if self._filter in one.name]
        readers.sort(key=SORTS[self._sort])
        _fill(self._table("readers"), [(_key(one), reader_cells(one)) for one in readers])
        self._draw_workers()
        self.query_one("#state", Static).update(shown(self._state()))

    def _draw_workers(self) -> None:
        reader = self.chosen_reader()
        working = reader.working if isinstance(reader, GroupView) else None
        table = self._table("workers")
        table.display = bool(working)
        rows = []
        for one in working or ():
            cells = (
                f"{one.pid}",
                f"{one.handled:,}",
                rate(one.handled_per_s),
                f"{one.failed:,}",
                f"{one.in_flight:,}",
                duration(one.busy_s),
            )
            rows.append((str(one.pid), list(cells)))
        _fill(table, rows)

    def _state(self) -> str:
        error = self.chosen_log().error
        parts = [f"sorted by {self._sort}"]
        if self._filter:
            parts.append(f"only names with {self._filter!r}")
        if self._is_paused:
            parts.append("PAUSED")
        if error is not None:
            parts.append(f"not up to date: {error}")
        return ", ".join(parts)

    # --- what is chosen --------------------------------------------------------------------------

    def chosen_log(self) -> Watched:
        """The log under the cursor."""
        row = self._table("logs").cursor_row
        return self._logs[min(max(row, 0), len(self._logs) - 1)]

    def chosen_reader(self) -> ReaderView | None:
        """The consumer or group under the cursor."""
        table, view = self._table("readers"), self.chosen_log().view
        if view is None or not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        return next((one for one in view.readers if _key(one) == key), None)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Another row is under the cursor."""
        if event.data_table.id == "logs":
            self._draw_readers()
        elif event.data_table.id == "readers":
            self._draw_workers()

    # --- keys ------------------------------------------------------------------------------------

    def action_sort(self) -> None:
        """Sort by the next one."""
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        self._draw_readers()

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._is_paused = not self._is_paused
        self._draw_readers()

    @work
    async def action_filter(self) -> None:
        """Ask for a part of names."""
        text = await self.push_screen_wait(Asked("Show readers whose name has:", self._filter))
        if text is not None:
            self._filter = text
            self._draw_readers()

    @work
    async def action_help(self) -> None:
        """Tell the keys."""
        await self.push_screen_wait(Told(HELP))

    @work
    async def action_events(self) -> None:
        """The events of the log."""
        await self.push_screen_wait(Events(self.chosen_log()))
        self._draw()

    @work
    async def action_letters(self) -> None:
        """The dead letters of the group."""
        reader = self.chosen_reader()
        if not isinstance(reader, GroupView):
            self.notify("choose a group first: dead letters are those of a group")
            return
        await self.push_screen_wait(Letters(self.chosen_log(), reader.name))
        self._draw()

    @work
    async def action_seek(self) -> None:
        """Ask where to, show what that changes, and do it."""
        watched, reader = self.chosen_log(), self.chosen_reader()
        if reader is None:
            return
        question = f"Move {reader.name} to (number, time, 15m, beginning, latest):"
        text = await self.push_screen_wait(Asked(question, f"{reader.position + 1}"))
        if not text:
            return
        try:
            position = position_of(text)
        except EventLogError as error:
            self._tell(error)
            return
        preview = await self._carried(lambda: preview_seek(watched.log, reader.name, position))
        if preview is not None and await self.push_screen_wait(Confirmed(f"{preview}\n\nSeek?")):
            await self._carried(lambda: watched.act(lambda log: log.seek(reader.name, position)))
            self._look()

    @work
    async def action_ack(self) -> None:
        """Ask up to where, and acknowledge."""
        watched, reader = self.chosen_log(), self.chosen_reader()
        if reader is None:
            return
        last = "" if watched.view is None else str(watched.view.last_seq_no or "")
        question = f"Acknowledge for {reader.name} everything up to number:"
        text = await self.push_screen_wait(Asked(question, last))
        if not text:
            return
        if not text.isdecimal():
            self.notify(f"{text} is no number", severity="error")
            return
        seq_no = int(text)
        what = (
            f"{reader.name}: {reader.position:,} -> {seq_no:,},"
            f" {max(seq_no - reader.position, 0):,} events passed over\n\nAcknowledge?"
        )
        if await self.push_screen_wait(Confirmed(what)):
            await self._carried(lambda: watched.act(lambda log: log.ack(reader.name, seq_no)))
            self._look()

    async def _carried(self, call: Callable[[], Any]) -> Any:
        """What a call to a log gives, made in a thread; an error is told, and `None` given."""
        outcome: Any = await self.run_worker(_told(call), thread=True).wait()
        if isinstance(outcome, EventLogError):
            self._tell(outcome)
            return None
        return outcome

    def _tell(self, error: EventLogError) -> None:
        self.notify(str(error), severity="error", markup=False)


def _told(call: Callable[[], Any]) -> Callable[[], Any]:
    def told() -> Any:
        try:
            return call()
        except EventLogError as error:
            return error

    return told


def _key(reader: ReaderView) -> str:
    return f"{'group' if isinstance(reader, GroupView) else 'consumer'} {reader.name}"


def _log_cells(view: LogView) -> list[str]:
    return [
        view.path,
        rate(view.appended_per_s),
        sparkline(view.trend),
        number(view.last_seq_no),
        size(view.bytes),
        "-" if view.writer is None else writer_line(view.writer),
    ]


def _fill(table: DataTable[Any], rows: list[tuple[str, list[str]]]) -> None:
    """Show these rows, changing cells in place as long as they are the same rows in that order."""
    if [key for key, _ in rows] != [str(key.value) for key in table.rows]:
        kept = table.cursor_row
        table.clear()
        for key, cells in rows:
            table.add_row(*map(shown, cells), key=key)
        if rows:
            table.move_cursor(row=min(kept, len(rows) - 1))
        return
    columns = list(table.columns)
    for key, cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            table.update_cell(key, column, shown(cell), update_width=True)
