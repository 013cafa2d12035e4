"""The prose of the repository: docstrings name the thing first, subjects of commits are short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

import eventlog

ROOT: Final = Path(eventlog.__file__).parent.parent
FOLDERS: Final = ("eventlog", "workers", "tests", "scripts")
HEADLESS: Final = re.compile(r'^ *"""(?:Of|Who|Whose) .*', re.MULTILINE)
"""The first line of a docstring that leaves the thing out, and tells its relation only."""
SUBJECT_MAX: Final = 72
SINCE: Final = "2026-11-28T18:30:00+00:00"
"""Earlier commits did not know the rule."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_name_the_thing_first(folder: str) -> None:
    """Not "Of a staging ring: some batches", but "Size of a staging ring: some batches"."""
    headless = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in HEADLESS.findall(path.read_text())
    ]
    assert headless == []


def test_subjects_of_commits_are_short() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository: a released source")
    command = ["git", "log", f"--since={SINCE}", "--no-merges", "--format=%s"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert [subject for subject in said.splitlines() if len(subject) > SUBJECT_MAX] == []
