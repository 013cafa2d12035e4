"""A real disk that fills up, and a process that may not make its files larger."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import full_disk

ROOT = Path(__file__).parents[2]
MOUNT = 'mount -t tmpfs -o size=50m none "$1" && exec "$2" -m tests.faults.full_disk "$1"'


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    tried = subprocess.run(
        [unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    )
    return tried.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no mounts without privileges here")
def test_a_job_on_a_disk_of_50_mb_fills_it_and_goes_on(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stored ")
    assert full_disk.BALLAST_BYTES > 2 * full_disk.SEGMENT_BYTES


LIMITED = """
import resource, sys
from eventlog.errors import LogFull
from eventlog.testing import batch_of, open_storage, stored_events

log = open_storage(sys.argv[1], segment_bytes=4096)
events = [str(number) * 900 for number in range(9)]
log.append(batch_of(*events[:3]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
refused = 0
for _ in range(3):
    try:
        log.append(batch_of(*events[3:6]))
    except LogFull:
        refused += 1
log.ack("reader", 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.append(batch_of(*events[3:6]))
log.append(batch_of(*events[6:]))
log.close()
assert refused == 3
assert list(stored_events(sys.argv[1]).values()) == events
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "log")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
