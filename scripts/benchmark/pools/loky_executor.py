"""loky's executor, which joblib uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem


class LokyExecutor(PoolSystem):
    """See the module."""

    name = "loky"
    needs = ("loky",)

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """An executor of its own."""
        from loky import ProcessPoolExecutor

        with ProcessPoolExecutor(PROCESSES) as executor:

            def handle_all(events: Sequence[Any]) -> None:
                deque(executor.map(handler, events, chunksize=1), maxlen=0)

            yield handle_all
