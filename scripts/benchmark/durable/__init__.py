"""Systems that store events so that a loss of power leaves them there: one module for each."""

from __future__ import annotations

from benchmark.durable.base import Durable
from benchmark.durable.file import DurableFile
from benchmark.durable.jetstream import DurableJetStream
from benchmark.durable.log import DurableLog
from benchmark.durable.redis_streams import DurableRedis
from benchmark.durable.sqlite_table import DurableSqlite

ALL: tuple[type[Durable], ...] = (
    DurableLog,
    DurableRedis,
    DurableJetStream,
    DurableSqlite,
    DurableFile,
)
"""The log first, the limit last."""
