"""Many readers check every record while the writer runs flat out: none ever sees a torn batch.

The readers are processes of their own that only map the files; nothing synchronises them with the
writer but the order in which it stores.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventlog import Retention, blocking
from eventlog.demo.main_job import stop_process

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
READERS = 4
SEGMENT_BYTES = 256 * 1024
LEAST_EVENTS = 1000
"""That each reader must have checked, or the test proves nothing."""

READER = """
import sys
from eventlog import EventsTruncated
from eventlog.local.storage.reading.reader import LogReader
from tests.storage.test_litmus import END, event_of

path, verify = sys.argv[1], sys.argv[2] == "verify"
log = LogReader(path)
reader = log.batches(log.first_available, verify=verify)
checked = truncated = waits = 0
following = reader.next_seq_no
print("ready", flush=True)
event = None
while event != END:
    try:
        batch = reader.next_batch()
    except EventsTruncated as error:
        reader.close()
        reader = log.batches(error.first_available, verify=verify)
        following = error.first_available
        truncated += 1
        continue
    if batch is None:
        waits += 1
        continue
    assert batch.header.base_seq_no <= following, (batch.header, following)
    for envelope in batch.envelopes(path):
        event = envelope.event
        if envelope.seq_no < following:
            continue  # the batch began before the place where this reader went on
        assert envelope.seq_no == following, (envelope.seq_no, following)
        assert event == END or event == event_of(following), following
        following += 1
        checked += 1
print(checked, truncated, waits)
"""
END = "the end"


_source = random.Random(7)
PADDING = [_source.randbytes(_source.choice((0, 10, 100, 3000))) for _ in range(997)]


def event_of(seq_no: int) -> dict[str, Any]:
    """The only event that may stand under this number; quickly, so that readers keep up."""
    return {"n": seq_no, "x": PADDING[seq_no % 997]}


@contextmanager
def writing(path: str, **options: Any) -> Iterator[blocking.EventLog]:
    """A log whose writer is ended afterwards."""
    with blocking.open(path, durability="memory", segment_bytes=SEGMENT_BYTES, **options) as log:
        pid = log.status().writer_pid
        assert pid is not None
        try:
            yield log
        finally:
            stop_process(pid)


def write_flat_out(log: blocking.EventLog, seconds: float) -> int:
    """Batches of random sizes for so long, or until there are enough; how many events there are."""
    source, following = random.Random(1), 1
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or following <= 2 * LEAST_EVENTS:
        count = source.choice((1, 1, 2, 10, 60))
        _, last = log.append_many([event_of(following + n) for n in range(count)])
        following = last + 1
    log.append(END)
    return following


def litmus(path: str, verify: str, seconds: float, **options: Any) -> list[tuple[int, int, int]]:
    """What each reader checked, and how often retention overtook it, and how often it waited."""
    with writing(path, **options) as log:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", READER, path, verify],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
            )
            for _ in range(READERS)
        ]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        write_flat_out(log, seconds)
        said = [reader.communicate(timeout=60) for reader in readers]
    for reader, (_, errors) in zip(readers, said, strict=True):
        assert reader.returncode == 0, errors
    found = [tuple(map(int, out.split())) for out, _ in said]
    return [(checked, truncated, waits) for checked, truncated, waits in found]


@pytest.mark.parametrize("verify", ["verify", "believe"])
@pytest.mark.parametrize("seconds", [1.5, pytest.param(60, marks=pytest.mark.slow)])
def test_every_reader_sees_every_event_whole(tmp_path: Path, seconds: float, verify: str) -> None:
    found = litmus(str(tmp_path / "log"), verify, seconds)
    assert len({checked for checked, _, _ in found}) == 1
    assert found[0][0] > LEAST_EVENTS
    assert all(truncated == 0 for _, truncated, _ in found)
    assert any(waits for _, _, waits in found), "no reader was ever as far as the writer"


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60, marks=pytest.mark.slow)])
def test_no_reader_sees_what_a_recycled_segment_is_used_for(tmp_path: Path, seconds: float) -> None:
    kept = Retention(max_bytes=3 * SEGMENT_BYTES, keep_unacked=False)
    found = litmus(str(tmp_path / "log"), "verify", seconds, retention=kept)
    assert all(checked > LEAST_EVENTS // 10 for checked, _, _ in found)
