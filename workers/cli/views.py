"""What `workers run` shows of its pool: a live table on a terminal, log lines, or lines of JSON."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler

from eventlog.terminal.log_lines import LogFormat, formatter_of
from eventlog.terminal.printing import folded
from eventlog.terminal.show import to_json
from workers.cli.show import stats_fields, stats_line, stats_table
from workers.stats import PoolStats

logger = logging.getLogger("workers")
LINE_FORMAT: Final = "%(asctime)s %(levelname)s [%(worker)s] %(message)s"
OF_THE_POOL: Final = {"worker": "pool"}
"""What a record that no worker logged says of where it is from."""


class View(ABC):
    """One way of showing a pool."""

    refresh_s = 1.0
    """How often to show it."""

    @abstractmethod
    def show(self, stats: PoolStats, rate: float) -> None:
        """Show a pool that runs."""

    def end(self, stats: PoolStats, rate: float, error: str | None) -> None:
        """Show a pool that has ended, and of what unless it was told to."""
        logger.info("ended: %s", stats_line(stats))


class TableView(View):
    """A table on the terminal that changes; log lines pass above it."""

    refresh_s = 0.25

    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title

    def show(self, stats: PoolStats, rate: float) -> None:
        """Draw it anew."""
        self._live.update(folded(stats_table(self._title, stats, rate)), refresh=True)

    def end(self, stats: PoolStats, rate: float, error: str | None) -> None:
        """Leave it as it was at the end."""
        self.show(stats, rate)


class LineView(View):
    """A log line, each few seconds, while something happens."""

    refresh_s = 10.0

    def __init__(self) -> None:
        self._shown: tuple[int, int] | None = None

    def show(self, stats: PoolStats, rate: float) -> None:
        """Log it, if the counts are others than the last time."""
        now = (stats.handled, stats.failed)
        if now not in (self._shown, (0, 0)):
            logger.info("%s", stats_line(stats, rate))
        self._shown = now


class JsonView(View):
    """A line of JSON whenever something changed, twice a second at most, and one at the end."""

    refresh_s = 0.5

    def __init__(self) -> None:
        self._shown: PoolStats | None = None

    def show(self, stats: PoolStats, rate: float) -> None:
        """Print it, if it is not as the last time."""
        if stats != self._shown:
            self._print({"state": "running", **stats_fields(stats, rate)})
        self._shown = stats

    def end(self, stats: PoolStats, rate: float, error: str | None) -> None:
        """Print how it ended."""
        state = {"state": "ended"} if error is None else {"state": "failed", "error": error}
        self._print({**state, **stats_fields(stats, rate)})

    def _print(self, fields: dict[str, Any]) -> None:
        if sys.stdout is not None:
            sys.stdout.write(to_json(fields) + "\n")
            sys.stdout.flush()


@contextmanager
def open_view(title: str, *, as_json: bool, log_format: LogFormat) -> Iterator[View]:
    """The view that fits, with logging set up beside it."""
    console = Console(stderr=True, highlight=False)
    if as_json or log_format is LogFormat.json or not console.is_terminal:
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(formatter_of(log_format, LINE_FORMAT, OF_THE_POOL))
        _log_to(handler)
        yield JsonView() if as_json else LineView()
        return
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    handler.setFormatter(formatter_of(log_format, "[%(worker)s] %(message)s", OF_THE_POOL))
    _log_to(handler)
    with Live(console=console, auto_refresh=False) as live:
        yield TableView(live, title)


def _log_to(handler: logging.Handler) -> None:
    logging.basicConfig(level=logging.INFO, handlers=[handler])
