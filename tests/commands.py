"""Commands of `eventlog` that tests run to their end, each in a process of its own.

With the fixture `quick_commands` the process is a fork of one that has imported all commands: most
of what a command costs is imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.nursery import Nursery

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND: Final = [sys.executable, "-m", "eventlog"]
LIMIT_S: Final = 60.0

nursery: Nursery | None = None
"""What forks commands; set by the fixture `quick_commands`."""


def run_bytes(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command with that standard input."""
    command = [*COMMAND, *arguments]
    if nursery is not None:
        return nursery.run_command(command, given, ENVIRONMENT)
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=LIMIT_S,
        check=False,
    )


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command with that text as its standard input."""
    done = run_bytes(*arguments, given=given.encode())
    said, errors = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, said, errors)


def out(*arguments: str, given: str = "") -> str:
    """What a command prints that succeeds."""
    done = run(*arguments, given=given)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
