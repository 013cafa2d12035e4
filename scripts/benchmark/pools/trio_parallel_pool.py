"""trio-parallel: one call for each event, as many at a time as there are processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmark.pools.base import PROCESSES, HandleAll, Handler, PoolSystem


class TrioParallelPool(PoolSystem):
    """See the module."""

    name = "trio-parallel"
    needs = ("trio_parallel",)

    @contextmanager
    def opened(self, directory: str, handler: Handler) -> Iterator[HandleAll]:
        """Its processes are started by the first calls, and stay."""
        import trio
        import trio_parallel

        async def handle(events: Sequence[Any]) -> None:
            waiting = iter(events)

            async def call_on() -> None:
                for event in waiting:
                    await trio_parallel.run_sync(handler, event, limiter=limiter)

            limiter = trio.CapacityLimiter(PROCESSES)
            async with trio_parallel.open_worker_context() as _, trio.open_nursery() as nursery:
                for _ in range(PROCESSES):
                    nursery.start_soon(call_on)

        yield lambda events: trio.run(handle, events)
