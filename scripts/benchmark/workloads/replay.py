"""Stored events, read back from the first to the last: a million, or ten million with --long.

The limit is a loop of `msgpack.unpackb` over a mapped file of the same events. Reading the log is
that, and checking each batch's CRC, and making an envelope with its number for each event.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgpack

from benchmark import events
from benchmark.processes import Crew
from benchmark.replays import ALL, log, sqlite_table, typed_log
from benchmark.replays.bare_loop import MsgspecLoop, UnpackLoop
from benchmark.replays.base import Replay as Way
from benchmark.replays.base import Replayed, Stored
from benchmark.replays.sqlite_table import SqliteTable
from benchmark.results import Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import CHUNK_EVENTS, served
from benchmark.workloads.base import Column, Contender, Workload

FIGURE: Final = "events_per_s"
COUNT: Final = 1_000_000
LONG_COUNT: Final = 10_000_000
AT_LEAST: Final = {UnpackLoop: 0.9, SqliteTable: 1.3, MsgspecLoop: None}


class Replay(Workload):
    """See the module."""

    name = "replay"
    title = "Stored dicts of 150 bytes, replayed"
    note = "A million of them; ten million with --long. All is in the page cache."
    columns = (Column(FIGURE, "events/s"), Column("cpu_us", "CPU us", 2))
    compared = FIGURE
    goals = (
        *(
            RatioGoal(
                text=f"{way.name} / {limit.name.removeprefix('limit: ')}",
                figure=FIGURE,
                of=way.name,
                to=limit.name,
                at_least=at_least,
            )
            for limit, at_least in AT_LEAST.items()
            for way in log.ALL
        ),
        *(
            RatioGoal(
                text=f"{way.name} / the faster of SQLite and msgpack.unpackb",
                figure=FIGURE,
                of=way.name,
                to=(SqliteTable.name, UnpackLoop.name),
                at_least=1.0,
            )
            for way in typed_log.ALL
        ),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Write what all runs read."""
        count = LONG_COUNT if settings.is_long else settings.scaled(COUNT)
        with settings.new_directory() as directory:
            stored = Stored(directory, count)
            sqlite_table.write(stored)
            _write_messages(stored)
            with served(stored.log, settings.durability) as (opened, _):
                for chunk in events.chunks(count, CHUNK_EVENTS):
                    opened.append_many(chunk)
                yield [
                    Contender(way.name, partial(_measure, way(), stored), way.missing())
                    for way in ALL
                ]


def _write_messages(stored: Stored) -> None:
    pack = msgpack.Packer().pack
    with Path(stored.messages).open("wb") as file:
        file.writelines(pack(event) for event in events.events(stored.events))
    assert os.path.getsize(stored.messages) == stored.events * events.EVENT_BYTES


def _measure(way: Way, stored: Stored) -> Figures:
    with Crew() as crew:
        member = crew.start("reader", partial(way.read, stored))
        replayed: Replayed = crew.hear(member)[0]
    return {
        FIGURE: stored.events / replayed.wall_s,
        "cpu_us": replayed.cpu_s / stored.events * 1e6,
    }
