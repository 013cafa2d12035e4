"""What stands before the screen for a moment: one line to give, yes or no, a text."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from eventlog.terminal.printing import clean_lines


def shown(text: str) -> Text:
    """The text of others: no markup, nothing that a terminal obeys."""
    return Text(clean_lines(text))


class Asked(ModalScreen[str | None]):
    """Asks for one line; gives `None` for Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel")]
    CSS = """
    Asked { align: center middle; }
    Asked > Vertical { width: 72; max-width: 90%; height: auto; border: round $primary;
                       background: $surface; padding: 1 2; }
    """

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question = question
        self._value = value

    def compose(self) -> ComposeResult:
        """A question and a line."""
        with Vertical():
            yield Static(shown(self._question))
            yield Input(self._value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The line is there."""
        self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        """No answer."""
        self.dismiss(None)


class Confirmed(ModalScreen[bool]):
    """Shows what would be done, and asks whether to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]
    CSS = """
    Confirmed { align: center middle; }
    Confirmed > Vertical { width: 72; max-width: 90%; height: auto; border: round $warning;
                           background: $surface; padding: 1 2; }
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        """What would be done, and the keys."""
        with Vertical():
            yield Static(shown(self._what))
            yield Static("\ny does it, n does not")

    def action_answer(self, answer: bool) -> None:
        """The answer is there."""
        self.dismiss(answer)


class Told(ModalScreen[None]):
    """Shows a text until Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", "Back")
    ]
    CSS = """
    Told { align: center middle; }
    Told > Static { width: 84; max-width: 95%; height: auto; border: round $primary;
                    background: $surface; padding: 1 2; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static(shown(self._text))

    def action_leave(self) -> None:
        """Back."""
        self.dismiss(None)
