"""Shares of the tests: `--share 7/10` runs the seventh of ten, which have all between them."""

from __future__ import annotations

from zlib import crc32


def is_in(share: str, name: str) -> bool:
    """Whether the test of that name is in the share K/N; K may be any number, as of a commit.

    By its name alone: a new test leaves the others in the shares where they are.
    """
    number, shares = map(int, share.split("/"))
    return (crc32(name.encode()) - number) % shares == 0
