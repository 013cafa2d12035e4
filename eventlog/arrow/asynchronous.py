"""A range as a table, for trio and asyncio: what takes long is done in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pyarrow as pa
from anyio import to_thread

from eventlog.arrow.passes import FirstPass, SecondPass
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode

AsyncRead = Callable[[Decode], AsyncIterator[list[EventEnvelope]]]
"""See `passes.Read`."""


async def table_of(read: AsyncRead) -> pa.Table:
    """The range as one table in memory."""
    first = FirstPass(kept_bytes_max=None)
    async for batch in read(first.decoder):
        if first.add(batch):
            await to_thread.run_sync(first.take)
            if first.is_over:
                break
    batches = await to_thread.run_sync(first.end)
    if batches is None:
        batches = await _again(read, SecondPass(first.shape))
    return pa.Table.from_batches(batches, first.shape.schema)


async def _again(read: AsyncRead, second: SecondPass) -> list[pa.RecordBatch]:
    batches = [
        await to_thread.run_sync(second.take)
        async for batch in read(second.decoder)
        if second.add(batch)
    ]
    return batches + await to_thread.run_sync(second.end)
