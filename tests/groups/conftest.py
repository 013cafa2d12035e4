"""A group to begin with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.groups.world import (
    TEMPORARY,
    World,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Twenty events and the group `g`, which begins with the first."""
    made = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    made.append(20)
    made.open_group()
    yield made
    made.end()


@pytest.fixture
def fast() -> Iterator[Path]:
    """A directory in memory, if there is such a place: these tests make hundreds of logs."""
    made = Path(tempfile.mkdtemp(dir=TEMPORARY))
    yield made
    shutil.rmtree(made)
