"""Shares of the tests, and ways of a test that it takes in turns.

`--share 7/10` runs the seventh of ten shares, which have all tests between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pytest


def is_in(share: str, name: str) -> bool:
    """Whether the test of that name is in the share K/N; K may be any number, as of a commit.

    By its name alone: a new test leaves the others in the shares where they are.
    """
    number, shares = map(int, share.split("/"))
    return (crc32(name.encode()) - number) % shares == 0


def turns(test: str, ways: Sequence[Any], ids: Sequence[str]) -> list[Any]:
    """All ways to run a test; all but one, which its name chooses, are left to the slow tests."""
    return [
        pytest.param(
            way, id=name, marks=() if is_in(f"{number}/{len(ways)}", test) else pytest.mark.slow
        )
        for number, (way, name) in enumerate(zip(ways, ids, strict=True))
    ]
