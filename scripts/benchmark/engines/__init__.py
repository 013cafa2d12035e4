"""Engines over a server: our API, and the bare client that does the same work. One for each."""

from __future__ import annotations

from benchmark.engines.base import Way
from benchmark.engines.jetstream import JETSTREAM
from benchmark.engines.redis import REDIS

ALL: tuple[Way, ...] = (*REDIS, *JETSTREAM)
"""In the order of the table."""
