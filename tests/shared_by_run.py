"""One server for all processes of a test run, for kinds that take seconds to start.

::

    test process --- holds a shared lock on the file `users` for as long as it lives
    keeper       --- the server's parent; ends it once it gets that lock alone: nobody is left

The first process that asks starts the keeper. Locks go with their process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Final

from tests import servers
from tests.kafka_broker import locked

_held: dict[str, IO[str]] = {}
"""Locks of this process, by kind."""
FAILED: Final = "failed: "
_RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
"""A forked child goes on with the server of its parent."""


def _folder(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"eventlog-{name}-run-{_RUN}"


def server_of_run(name: str) -> servers.Server:
    """The server of that kind that this test run has; started by whoever asks first."""
    folder = _folder(name)
    said = folder / "port"
    with locked(folder.with_suffix(".lock")):
        if name not in _held:
            _hold(name, folder)
        if not said.exists():
            _start_keeper(name, folder)
    answer = said.read_text()
    if answer.startswith(FAILED):
        raise RuntimeError(answer)
    return servers.Server(servers.KINDS[name], folder / "server", port=int(answer))


def _hold(name: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    file = (folder / "users").open("a")
    fcntl.flock(file, fcntl.LOCK_SH)
    _held[name] = file


def _start_keeper(name: str, folder: Path) -> None:
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.shared_by_run", name, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
    servers.note_running(keeper.pid)
    assert keeper.stdout is not None
    keeper.stdout.read()  # it closes this once there is an answer, or ends
    keeper.stdout.close()
    keeper.returncode = 0  # it may outlive this process, which does not wait for it


def keep(name: str, folder: Path) -> None:
    """Be the keeper."""
    server = servers.Server(servers.KINDS[name], folder / "server")
    try:
        server.start()
        (folder / "port").write_text(str(server.port))
    except (servers.ServerMissing, RuntimeError) as error:
        (folder / "port").write_text(f"{FAILED}{error}")
    os.dup2(2, 1)
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.kill()
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
