"""A server's process: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmark import interrupts
from benchmark.processes import RunFailed

START_S_MAX: Final = 15.0
STOP_S_MAX: Final = 5.0
STEP_S: Final = 0.01
OUTPUT_CHARACTERS: Final = 1000
"""Length of a server's last words, when it could not be started."""


@contextmanager
def running(
    command: Sequence[str],
    directory: str,
    is_up: Callable[[], bool],
    *,
    has_nothing_to_keep: bool = False,
) -> Iterator[int]:
    """The process id of a server that answers; afterwards it is gone.

    `is_up` is asked until it says so. The server's output goes into the directory, which is its
    home too. `has_nothing_to_keep`: it is killed, and not asked to end.

    Raises:
        RunFailed: it ended, or said nothing for too long; with what it wrote last.
    """
    output = Path(directory, "server.log")
    with ExitStack() as stack:
        with interrupts.held(), output.open("wb") as file:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, "HOME": directory},
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )
            stack.callback(_stop, server, signal.SIGKILL if has_nothing_to_keep else signal.SIGTERM)
        deadline = time.monotonic() + START_S_MAX
        while not is_up():
            if server.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(errors="replace")[-OUTPUT_CHARACTERS:]
                raise RunFailed(f"{command[0]} did not come up; it wrote:\n{said}")
            time.sleep(STEP_S)
        yield server.pid


def _stop(server: subprocess.Popen[bytes], how: signal.Signals) -> None:
    server.send_signal(how)
    try:
        server.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def free_port() -> int:
    """A port of this machine's own that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
