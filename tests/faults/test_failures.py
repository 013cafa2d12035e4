"""The n-th call fails, for n = 1, 2, 3 … until a history gets through without a failure."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator

import pytest

from eventlog.local.storage import files as storage_files
from eventlog.testing import FailingFiles
from tests.faults import failures
from tests.faults.crashes import check, kills
from tests.faults.histories import SHORT, run
from tests.faults.recorder import arena

EACH = pytest.mark.parametrize(
    "each", [11, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"]
)
"""Every eleventh call fails in its turn; with the slow tests, every one."""


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


@EACH
@pytest.mark.parametrize("error_number", failures.ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", SHORT)
def test_any_call_may_fail(place: str, name: str, error_number: int, each: int) -> None:
    steps, options = SHORT[name]
    for at in range(1, 1000, each):
        shutil.rmtree(place, ignore_errors=True)
        files = FailingFiles(error_number, failures.KINDS, at, torn=at % 2 == 0)
        try:
            failures.run(place, steps, options, files)
        except Exception as error:
            error.add_note(f"{name}, {errno.errorcode[error_number]} at call {at}")
            raise
        if not files.has_failed:
            break
    assert 30 < at < 999


@EACH
@pytest.mark.parametrize("kinds", [("write", "allocate", "create"), ("sync", "sync_directory")])
@pytest.mark.parametrize("name", ["rolls", "retention", "restarts"])
def test_all_calls_may_fail_for_a_while(
    place: str, name: str, kinds: tuple[str, ...], each: int
) -> None:
    steps, options = SHORT[name]
    for at in range(1, 1000, each):
        shutil.rmtree(place, ignore_errors=True)
        files = FailingFiles(errno.ENOSPC, kinds, at, for_ever=True, torn=at % 2 == 0)
        failures.run(place, steps, options, files)
        if not files.has_failed:
            break
    assert 5 < at < 999


def test_short_reads_and_short_writes_are_gone_on_with(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        """The system's calls, a few bytes at a time."""

        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def pread(self, descriptor: int, size: int, position: int) -> bytes:
            return os.pread(descriptor, min(size, 100), position)

        def pwrite(self, descriptor: int, data: bytes, position: int) -> int:
            return os.pwrite(descriptor, data[:100], position)

        def pwritev(self, descriptor: int, parts: list[bytes], position: int) -> int:
            return os.pwrite(descriptor, b"".join(parts)[:100], position)

    monkeypatch.setattr(storage_files, "os", Short())
    trace = run(place, "restarts", *SHORT["restarts"])
    crashes = list(kills(trace, random.Random(1)))
    for crash in crashes[::50]:
        check(place, trace, crash, is_thorough=True)
