"""Commands of `eventlog` that tests run to their end, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
COMMAND: Final = [sys.executable, "-m", "eventlog"]
LIMIT_S: Final = 60.0


def run_bytes(
    *arguments: str,
    given: bytes = b"",
    command: Sequence[str] = COMMAND,
    environment: Mapping[str, str] = ENVIRONMENT,
    folder: str | os.PathLike[str] = ".",
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with that standard input, in that folder."""
    return subprocess.run(
        [*command, *arguments],
        input=given,
        capture_output=True,
        env=environment,
        cwd=folder,
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
