"""What a log's writer says to who only looks: a command that starts no writer, and never hangs."""

from __future__ import annotations

import socket
import time
from typing import Final

from eventlog.api.statistics import WriterStatistics, statistics_of
from eventlog.errors import EventLogError, WriterUnavailable
from eventlog.local.client.conversations import Channel
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.threads import BlockingPipe, OutOfTime
from eventlog.local.rendezvous import connect
from eventlog.local.wire.messages import Statistics

ASK_S_MAX: Final = 2.0
"""A writer that is stopped answers later, or never."""


def running_statistics(handle: LocalHandle) -> WriterStatistics | None:
    """What the log's writer has counted; `None` if none runs, or it does not say so in time."""
    pipe = BlockingPipe(handle.path, handle.new_channel(), find=_find_running)
    pipe.end_s = time.monotonic() + ASK_S_MAX
    try:
        report = pipe.run(pipe.channel.request(Statistics))
        return None if report is None else statistics_of(report.numbers)
    except (EventLogError, OutOfTime):
        return None
    finally:
        pipe.close()


def _find_running(channel: Channel) -> socket.socket:
    found = connect(channel.path)
    if found is None:
        raise WriterUnavailable(f"nobody serves the log {channel.path}", path=channel.path)
    return found
