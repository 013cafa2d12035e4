"""Bytes on their way into a pipe: what both shells keep between one `send` and the next. Pure."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

PARTS_AT_ONCE: Final = 64
"""What one `sendmsg` is given; the kernel's own limit is 1,024."""


class Unsent:
    """A queue of bytes that are not copied together."""

    def __init__(self) -> None:
        self._parts: deque[bytes | memoryview] = deque()

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._parts)

    def add(self, *parts: bytes | memoryview) -> None:
        """Put bytes behind what is there."""
        self._parts.extend(filter(None, parts))

    def parts(self) -> list[bytes | memoryview]:
        """What to give to `sendmsg` now."""
        return list(islice(self._parts, PARTS_AT_ONCE))

    def sent(self, count: int) -> None:
        """Note that the first `count` bytes are gone."""
        while count:
            first = self._parts.popleft()
            if count < len(first):
                self._parts.appendleft(memoryview(first)[count:])
                return
            count -= len(first)

    def clear(self) -> None:
        """Forget all: the pipe that they were for is gone."""
        self._parts.clear()
