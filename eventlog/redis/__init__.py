"""The engine over Redis and Valkey: a log is a stream, and every step of ours is one script there.

::

    redis://user:password@host:6379/0/orders      (rediss:// with TLS)

    RemoteEventLog -> RedisDriver -> Link -> one connection: calls, and word of changes
                      `- lua/*.lua: what the server does in one step

A script is what makes a step whole: numbers without gaps, a batch that is stored once, a position
that only goes forward, a result that is stored together with the end of its delivery. The scripts
say which keys there are (lua/common.lua, lua/groups.lua).

============  ==================================================
`address`     an address, taken apart; pure
`driver`      the log
`entries`     entries of the stream as events; pure
`group`       a group of it
`link`        the connection
`parser`      answers of the server, parsed
`reader`      what a stream reads next
`refusals`    what errors of the client library mean
`scripts`     the texts of the scripts
`settings`    what the server is set to
============  ==================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventlog.api.extras import check_extra

if TYPE_CHECKING:
    from eventlog.api.log import EventLog
    from eventlog.config import AskedOptions

NAME: Final = "redis"
OPTIONS: Final = frozenset(
    {
        *("durability", "retention", "on_full", "max_event_bytes", "retry_s", "lease_s"),
        *("user", "password"),
    }
)


def open_log(address: str, asked: AskedOptions) -> EventLog:
    """A handle of the log at an address, for trio and asyncio.

    Raises:
        NotSupported: the client library or its parser is not installed.
        InvalidArgument: the address is none.
    """
    check_extra("redis", "logs on Redis and Valkey need", engine=NAME)
    from eventlog.redis.driver import RedisDriver
    from eventlog.remote.log import RemoteEventLog

    return RemoteEventLog(address, asked, lambda: RedisDriver(address, asked))
