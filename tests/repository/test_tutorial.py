"""The tutorial is played as it stands: two terminals, what is typed there, and what they show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from select import select
from time import monotonic
from typing import Final

import pytest

from tests.repository.test_readme import stop_writers

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "tutorial.md").read_text()
STEP: Final = re.compile(
    r"<!-- (?P<who>one|two|file)(?:: (?P<name>[\w.-]+)| (?P<shows>shows)) -->\n"
    r"(?:```\w*\n(?P<text>.*?)```)?",
    re.DOTALL,
)
HANGS_S: Final = 30.0
NUMBER: Final = "PID"
"""Stands for a process in what is typed and shown."""


class Terminal:
    """Runs one command after the other."""

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self._folder = folder
        self._environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
        self._process: subprocess.Popen[bytes] | None = None
        self._shown = b""

    def type(self, text: str) -> None:
        """Start the command, when the one before it has ended."""
        self._await_end(0)
        self._shown = b""
        self._process = subprocess.Popen(
            ["bash", "-eu", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        self._await_end(0, 128 + signal.SIGINT, -signal.SIGINT)

    def _await_end(self, *codes: int) -> None:
        if self._process is not None:
            rest, _ = self._process.communicate(timeout=HANGS_S)
            assert self._process.returncode in codes, (self._shown + rest).decode()
            self._process = None

    def shows(self, line: str) -> re.Match[str]:
        """Wait until the command has shown that."""
        assert self._process is not None
        assert self._process.stdout is not None
        wanted = re.escape(line).replace(NUMBER, r"(\d+)")
        until = monotonic() + HANGS_S
        while not (found := re.search(wanted, self._shown.decode())):
            ready, _, _ = select([self._process.stdout], [], [], max(until - monotonic(), 0.0))
            read = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
            assert read, f"{line!r} is not shown, but:\n{self._shown.decode()}"
            self._shown += read
        return found

    def close(self) -> None:
        """End what still runs."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_writers(tmp_path)


@pytest.mark.slow  # some fifteen starts of Python
def test_the_tutorial_goes_as_it_says(folder: Path) -> None:
    terminals = {name: Terminal(folder) for name in ("one", "two")}
    number = "nobody's"
    try:
        for step in STEP.finditer(PAGE):
            who, text = step["who"], step["text"]
            if who == "file":
                (folder / step["name"]).write_text(text)
            elif step["name"] == "Ctrl-C":
                terminals[who].interrupt()
            elif step["shows"]:
                for line in text.splitlines():
                    found = terminals[who].shows(line)
                    number = found[1] if NUMBER in line else number
            else:
                terminals[who].type(text.replace(NUMBER, number))
    finally:
        for terminal in terminals.values():
            terminal.close()


def test_every_step_of_the_tutorial_is_played() -> None:
    assert sum(1 for step in STEP.finditer(PAGE) if step["text"]) == PAGE.count("```") // 2
