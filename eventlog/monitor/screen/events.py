"""The events of a log: the last ones, or those from a place, and one of them whole."""

from __future__ import annotations

from itertools import islice
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from eventlog.api.positions import SeekPosition
from eventlog.errors import EventLogError
from eventlog.event.envelope import EventEnvelope
from eventlog.monitor.screen.dialogs import Asked, shown
from eventlog.monitor.screen.watching import Watched
from eventlog.terminal.positions import position_of
from eventlog.terminal.show import event_text, plain_event, to_json

AT_ONCE = 200
LINE_LENGTH = 160


class Events(ModalScreen[None]):
    """A line for each event; below, the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "go", "Go to"),
        Binding("G", "last", "Last ones"),
        Binding("n", "following", "Next ones"),
        Binding("escape,q", "leave", "Back"),
    ]
    CSS = """
    Events { background: $surface; }
    Events DataTable { height: 1fr; }
    Events VerticalScroll { height: 1fr; border-top: solid $primary; }
    """

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self._watched = watched
        self._events: dict[str, EventEnvelope] = {}

    def compose(self) -> ComposeResult:
        """A table and a text."""
        yield DataTable(cursor_type="row")
        with VerticalScroll():
            yield Static(id="event")
        yield Footer()

    def on_mount(self) -> None:
        """Begin with the last ones."""
        self.query_one(DataTable).add_columns("number", "stored", "key", "event")
        self.action_last()

    @work(thread=True)
    def _read(self, position: SeekPosition | None) -> None:
        """What is stored from there on; without a position, the last ones."""
        log = self._watched.log
        try:
            if position is None:
                found = list(log.read(-AT_ONCE))
            else:
                with log.subscribe("top", position, follow=False, on_truncated="skip") as stream:
                    found = list(islice(stream, AT_ONCE))
        except EventLogError as error:
            self.app.call_from_thread(self.notify, str(error), severity="error", markup=False)
            return
        self.app.call_from_thread(self._draw, found, position is None)

    def _draw(self, found: list[EventEnvelope], are_last: bool) -> None:
        if not found:
            self.notify("there are no events from there on")
            return
        self._events = {str(one.seq_no): one for one in found}
        table = self.query_one(DataTable)
        table.clear()
        for one in found:
            stored = "" if one.stored_at is None else f"{one.stored_at.astimezone():%H:%M:%S.%f}"
            text = event_text(one.event)[:LINE_LENGTH]
            cells = (f"{one.seq_no:,}", stored[:-3], one.key or "", text)
            table.add_row(*map(shown, cells), key=str(one.seq_no))
        table.move_cursor(row=len(found) - 1 if are_last else 0)
        table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the event whole."""
        envelope = self._events.get(str(event.row_key.value))
        if envelope is not None:
            self.query_one("#event", Static).update(shown(_whole(envelope)))

    @work
    async def action_go(self) -> None:
        """Ask where to."""
        text = await self.app.push_screen_wait(Asked("Go to (number, time, 15m, beginning):"))
        if not text:
            return
        try:
            self._read(position_of(text))
        except EventLogError as error:
            self.notify(str(error), severity="error", markup=False)

    def action_last(self) -> None:
        """The last ones."""
        self._read(None)

    def action_following(self) -> None:
        """Those after the ones that are shown."""
        if self._events:
            self._read(SeekPosition.sequence(int([*self._events][-1]) + 1))

    def action_leave(self) -> None:
        """Back to the log."""
        self.dismiss(None)


def _whole(envelope: EventEnvelope) -> str:
    about = {
        "number": envelope.seq_no,
        "id": envelope.id,
        "key": envelope.key,
        "headers": envelope.headers,
        "timestamp": envelope.timestamp,
        "stored": envelope.stored_at,
        "cause": envelope.cause,
    }
    lines = [f"{name:<10} {value}" for name, value in about.items() if value is not None]
    return "\n".join([*lines, "", to_json(plain_event(envelope.event))])
