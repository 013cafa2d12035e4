"""Other users, for tests that root runs: processes that become them once all is imported.

The interpreter may lie where only root gets to, so a process imports whatever it may need first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
LIMIT_S: Final = 60.0
BECOME: Final = """
import json, os, sys
from importlib import import_module
import grp, pwd, trio, typer, rich.table, rich.text, rich.console
import eventlog
from eventlog.cli import app
app.register([])
for name in ("blocking", "local.log", "local.blocking_log", "local.group"):
    import_module("eventlog." + name)
for name in ("writer.__main__", "writer.server", "client.launch", "client.member"):
    import_module("eventlog.local." + name)
from rich.cells import cell_len
cell_len("\\N{GREEK SMALL LETTER ALPHA}")  # loads its tables
uid, groups = json.loads(sys.argv.pop(1))
os.setgroups(groups)
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
os.chdir("/")
"""
COMMAND: Final = "sys.argv[0] = 'eventlog'\napp.run()\n"


@dataclass(frozen=True)
class User:
    """Somebody with a group of the same number, and perhaps others."""

    uid: int
    groups: Sequence[int] = ()

    def words(self, code: str, arguments: Sequence[str]) -> list[str]:
        """What starts a process of the user that runs this code."""
        who = json.dumps([self.uid, [*self.groups]])
        return [sys.executable, "-B", "-c", BECOME + code, who, *arguments]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command of `eventlog` that goes on."""
        words = self.words(COMMAND, arguments)
        return subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd="/", **options
        )

    def run_code(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A program, to its end."""
        return subprocess.run(
            self.words(code, arguments),
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            cwd="/",
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of `eventlog`, to its end."""
        return self.run_code(COMMAND, *arguments)

    def out(self, *arguments: str) -> str:
        """What a command prints that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout
