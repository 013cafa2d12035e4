"""What a running writer puts on the disk by itself, and when."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
import trio

from eventlog.local.storage.files import Files
from eventlog.local.writer.server import Server
from eventlog.testing import batch_of, open_storage


class NotingFiles(Files):
    """Says when the offset table was synced."""

    def __init__(self) -> None:
        self.has_synced_positions = threading.Event()

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/offsets"):
            self.has_synced_positions.set()


@pytest.mark.parametrize("durability", ["disk", "sync"])
def test_positions_reach_the_disk_while_the_writer_runs(
    tmp_path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With "sync" they did at its end only: a loss of power could make them as old as the writer.
    monkeypatch.setattr("eventlog.local.writer.server.SYNC_INTERVAL_S", 0.01)
    files = NotingFiles()
    log = open_storage(str(tmp_path / "log"), files, durability=durability)
    log.append(batch_of("event"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    server = Server(log, listener, linger_s=None)

    async def main() -> bool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, lambda: None)
            files.has_synced_positions.clear()
            log.ack("consumer", 1)
            server._note_dirty()
            synced = await trio.to_thread.run_sync(files.has_synced_positions.wait, 20)
            nursery.cancel_scope.cancel()
        return synced

    assert trio.run(main)
