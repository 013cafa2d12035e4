"""Ways to read stored events back: one module for each."""

from __future__ import annotations

from benchmark.replays.bare_loop import ALL as BARE_LOOPS
from benchmark.replays.base import Replay
from benchmark.replays.log import ALL as LOGS
from benchmark.replays.sqlite_table import SqliteTable
from benchmark.replays.typed_log import ALL as TYPED_LOGS

ALL: tuple[type[Replay], ...] = (*LOGS, *TYPED_LOGS, SqliteTable, *BARE_LOOPS)
