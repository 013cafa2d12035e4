"""Dead letters that a pool writes: of events that used up their deliveries by killing workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.to_thread

from eventlog import EventEnvelope, EventLog, EventLogError, Group
from eventlog.local.groups import fitting_letter

if TYPE_CHECKING:
    from workers.place import Obituary


async def letter_of(
    log: EventLog, group: Group, seq_no: int, deliveries: int, obituary: Obituary
) -> bytes:
    """The letter of an event, with what is known of the worker that it ended last."""
    found: EventEnvelope | None = None
    try:
        for envelope in await log.read(seq_no, seq_no + 1):
            found = envelope
    except EventLogError:  # deleted or damaged meanwhile: an older letter may have a copy
        found = await anyio.to_thread.run_sync(group.copy_in_letter, seq_no)
    return fitting_letter(
        group.letter_bytes_max,
        found,
        error=obituary.error or f"its worker was lost {deliveries} times",
        exit_code=obituary.exit_code,
        peak_rss_bytes=obituary.peak_rss_bytes,
        log_lines=obituary.log_lines,
    )
