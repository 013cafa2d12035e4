"""Pools with `processes=0`, used from a thread, over logs in memory: how programs test handlers."""

from __future__ import annotations

import pytest

from eventlog import blocking
from workers.blocking import Pool


def half(event: int) -> int:
    return event // 2


def test_a_blocking_pool_tells_of_itself_while_it_runs_and_after() -> None:
    # It asked the log in the caller's thread, which got WrongEventLoop.
    with blocking.open("memory:") as log:
        log.append_many([2, 4])
        with Pool(log, group="g", handler=half, processes=0) as pool:
            pool.drained()
            assert pool.statistics().handled == 2
            assert pool.stats().lag == 0
        assert pool.statistics().handled == 2


@pytest.mark.parametrize("name", ["", "results-of-halves"])
def test_results_go_to_a_log_with_a_name_or_to_the_source_itself(name: str) -> None:
    with blocking.open("memory:") as log, blocking.open(f"memory:{name}") as other:
        output = other if name else log
        log.append(8, key="k")
        with Pool(log, group="g", handler=half, processes=0, output=output) as pool:
            pool.drained()
        result = list(output.read(0))[-1]
        assert (result.event, result.key) == (4, "k")
        assert result.cause is not None
