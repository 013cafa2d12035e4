"""The engine over Redis and Valkey: a log is a stream, and every step of ours is one script there.

::

    redis://user:password@host:6379/0/orders      (rediss:// with TLS)

    RemoteEventLog -> RedisDriver -> Link -> one connection: calls, and word of changes
                      `- lua/*.lua: what the server does in one step

A script is what makes a step whole: numbers without gaps, a batch that is stored once, a position
that only goes forward, a result that is stored together with the end of its delivery. The scripts
say which keys there are (lua/common.lua).
"""
