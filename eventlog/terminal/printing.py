"""What commands print: the text of others as it is, whole, and nothing that a terminal obeys.

Rules: names, keys, headers, events, paths, errors and log lines are the text of others. They go
through `clean` (control characters and what turns the direction of writing are escaped, so that an
event is one line and cannot repaint a terminal), reach rich as `Text` (so that a bracket is a
bracket and no markup), and are never cut (a terminal folds a table's cell, a pipe gets it whole).
Commands print with the functions of this module only; a test looks for any other way.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_RAW: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
WIDTH_MAX: Final = 1_000_000


def clean(text: str) -> str:
    r"""One line: control characters as `\x1b`, line ends as `\n`; a tab stays."""
    return _RAW.sub(_escaped, text)


def clean_lines(text: str) -> str:
    """As `clean`, but line ends stay: for tracebacks, and errors that quote several lines."""
    return "\n".join(map(clean, text.split("\n")))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def cell(text: str, style: str = "") -> Text:
    """The text of others in a table."""
    return Text(clean(text), style)


def say(text: str) -> None:
    """Print lines on the standard output; nothing if it is closed."""
    if sys.stdout is not None:
        sys.stdout.write(clean_lines(text) + "\n")


def say_now(text: str) -> None:
    """As `say`, for a reader who waits for each line."""
    say(text)
    if sys.stdout is not None:
        sys.stdout.flush()


def say_styled(*parts: str | tuple[str, str]) -> None:
    """Print one line, some parts of which have a style of their own."""
    _print_line(Console(highlight=False), parts)


def complain(*parts: str | tuple[str, str]) -> None:
    """Print a line on the standard error."""
    _print_line(Console(stderr=True, highlight=False), parts)


def _print_line(console: Console, parts: tuple[str | tuple[str, str], ...]) -> None:
    line = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        line.append(clean_lines(text), style)
    console.print(line, soft_wrap=True)


def fail_with(message: str) -> None:
    """Say on the standard error what went wrong."""
    complain(("error:", "bold red"), " " + message)


def counted(count: int, noun: str) -> str:
    """A number with its noun, of which there is one or several."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def is_terminal() -> bool:
    """Whether somebody looks at the standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def print_table(table: Table) -> None:
    """Print a table: folded into a terminal's width, whole in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        endless = console.options.update(max_width=WIDTH_MAX)
        console.width = max(Measurement.get(console, endless, table).maximum, 1)
    console.print(folded(table))


def folded(table: Table) -> Table:
    """The same table, whose cells go on in the next line instead of ending in dots."""
    for column in table.columns:
        column.overflow = "fold"
    return table
