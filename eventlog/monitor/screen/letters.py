"""The dead letters of a group: what failed, its traceback, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from eventlog import blocking
from eventlog.api.group import DeadLetter
from eventlog.errors import EventLogError
from eventlog.monitor.screen.dialogs import Confirmed, shown
from eventlog.monitor.screen.watching import Watched
from eventlog.terminal.show import event_text

SHOWN_MAX = 500
"""More letters than that are not looked through one by one; the command line takes them all."""


class Letters(ModalScreen[None]):
    """A line for each letter; below, the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "retry", "Retry"),
        Binding("R", "retry_all", "Retry all"),
        Binding("d", "drop", "Drop"),
        Binding("escape,q", "leave", "Back"),
    ]
    CSS = """
    Letters { background: $surface; }
    Letters DataTable { height: 1fr; }
    Letters VerticalScroll { height: 1fr; border-top: solid $primary; }
    """

    def __init__(self, watched: Watched, group: str) -> None:
        super().__init__()
        self._watched = watched
        self._group = group
        self._letters: dict[str, DeadLetter] = {}

    def compose(self) -> ComposeResult:
        """A table and a text."""
        yield DataTable(cursor_type="row")
        with VerticalScroll():
            yield Static(id="letter")
        yield Footer()

    def on_mount(self) -> None:
        """Read the letters."""
        self.query_one(DataTable).add_columns("number", "key", "deliveries", "died", "error")
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        try:
            letters = self._watched.log.dead_letters(self._group)
        except EventLogError as error:
            self.app.call_from_thread(self.notify, str(error), severity="error", markup=False)
            return
        self.app.call_from_thread(self._draw, letters)

    def _draw(self, letters: list[DeadLetter]) -> None:
        self._letters = {str(one.seq_no): one for one in letters}
        table = self.query_one(DataTable)
        table.clear()
        for one in letters[:SHOWN_MAX]:
            died = f"{one.failed_at.astimezone():%Y-%m-%d %H:%M:%S}"
            cells = (f"{one.seq_no:,}", one.key or "", f"{one.deliveries}", died, one.error)
            table.add_row(*map(shown, cells), key=str(one.seq_no))
        if not letters:
            self.query_one("#letter", Static).update(f"{self._group} has no dead letters")

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Show the letter whole."""
        letter = self._letters.get(str(event.row_key.value))
        if letter is None:
            return
        parts = [event_text(letter.event), letter.traceback or letter.error, *letter.log_lines]
        self.query_one("#letter", Static).update(shown("\n\n".join(parts)))

    def _chosen(self) -> int | None:
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        return int(str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value))

    @work
    async def action_retry(self) -> None:
        """Hand the letter's event out again."""
        if (seq_no := self._chosen()) is not None:
            question = f"Retry event {seq_no:,}?"
            await self._asked(question, lambda log: log.retry_dead(self._group, [seq_no]))

    @work
    async def action_retry_all(self) -> None:
        """Hand the events of all letters out again."""
        if self._letters:
            numbers = [*map(int, self._letters)]
            question = f"Retry all {len(numbers):,} events?"
            await self._asked(question, lambda log: log.retry_dead(self._group, numbers))

    @work
    async def action_drop(self) -> None:
        """Forget the letter."""
        if (seq_no := self._chosen()) is not None:
            question = f"Drop the letter of event {seq_no:,} for good?"
            await self._asked(question, lambda log: log.drop_dead(self._group, [seq_no]))

    async def _asked(self, question: str, action: Callable[[blocking.EventLog], object]) -> None:
        if await self.app.push_screen_wait(Confirmed(question)):
            self._carry_out(action)

    @work(thread=True)
    def _carry_out(self, action: Callable[[blocking.EventLog], object]) -> None:
        try:
            self._watched.act(action)
        except EventLogError as error:
            self.app.call_from_thread(self.notify, str(error), severity="error", markup=False)
        self._read()

    def action_leave(self) -> None:
        """Back to the log."""
        self.dismiss(None)
