"""Aggregates of a program that may read snapshots, and not write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.aggregates import BlockingAggregates
from eventlog.testing import open_storage


def test_snapshots_that_nobody_can_write_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_storage(str(tmp_path / "snapshots")).close()
    with (
        blocking.open("memory:") as log,
        blocking.open(tmp_path / "snapshots", start_writer=False) as snapshots,
    ):
        log.append_many([1, 2, 3], keys=list("aaa"))
        sums = BlockingAggregates(
            log, int, lambda state, event: state + event, snapshots=snapshots, snapshot_every=2
        )
        assert [sums.load("a").state for _ in range(3)] == [6, 6, 6]
    assert caplog.text.count("the snapshot of 'a' could not be stored") == 1
