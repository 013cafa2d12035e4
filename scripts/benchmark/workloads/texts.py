"""One producer to one consumer, dicts of 150 bytes with a key, or with a key and one header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmark.results import RatioGoal
from benchmark.settings import Settings
from benchmark.systems.log import BlockingLog
from benchmark.systems.log_texts import TextsLog, log_with_headers
from benchmark.systems.zmq_sockets import ZmqPushPull
from benchmark.systems.zmq_texts import ZmqTexts, zmq_with_headers
from benchmark.workloads.base import Contender, Workload
from benchmark.workloads.transfer import COLUMNS, FIGURE, NOTE, Entry, contender

BARE: Final = "log, neither"
KEY: Final = "log, a key"
HEADER: Final = "log, a key and a header"
ENTRIES: Final = (
    Entry(BARE, BlockingLog, 800_000),
    Entry(KEY, TextsLog, 800_000),
    Entry(HEADER, log_with_headers, 800_000),
    Entry("pyzmq, neither", ZmqPushPull, 500_000),
    Entry("pyzmq, a key", ZmqTexts, 500_000),
    Entry("pyzmq, a key and a header", zmq_with_headers, 500_000),
)


def _goal(of: str, to: str, at_least: float) -> RatioGoal:
    return RatioGoal(text=f"{of} / {to}", figure=FIGURE, of=of, to=to, at_least=at_least)


class Texts(Workload):
    """See the module."""

    name = "texts"
    title = "One producer to one consumer, dicts of 150 bytes with a key and a header"
    note = (
        "Blocking, event by event: `send` and `for`. The key is one of a thousand; the consumer"
        " reads key and header. " + NOTE
    )
    columns = COLUMNS
    compared = FIGURE
    goals = (
        _goal(KEY, BARE, 0.9),
        _goal(HEADER, BARE, 0.8),
        _goal(KEY, "pyzmq, a key", 1.2),
        _goal(HEADER, "pyzmq, a key and a header", 1.2),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [contender(entry, settings) for entry in ENTRIES]
