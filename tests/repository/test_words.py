"""The prose of the repository: docstrings name the thing first, subjects of commits are short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

import eventlog

ROOT: Final = Path(eventlog.__file__).parent.parent
HEADLESS: Final = "(?:Of|Who|Whose) "
"""What begins a docstring that leaves the thing out, and tells its relation only."""
BEGINNINGS: Final = {
    "eventlog": f"{HEADLESS}|See the module",
    "workers": f"{HEADLESS}|See the module",
    "tests": HEADLESS,
    "scripts": HEADLESS,
}
"""What no docstring of a folder begins with."""
SUBJECT_MAX: Final = 72
SINCE: Final = "2026-11-28T20:10:00+00:00"
"""Earlier commits did not know the rule."""


@pytest.mark.parametrize("folder", BEGINNINGS)
def test_docstrings_name_the_thing_first(folder: str) -> None:
    """Not "Of a staging ring: some batches", but "Size of a staging ring: some batches"."""
    beginning = re.compile(f'^ *"""(?:{BEGINNINGS[folder]}).*', re.MULTILINE)
    headless = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for found in beginning.findall(path.read_text())
    ]
    assert headless == []


def test_subjects_of_commits_are_short() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository: a released source")
    command = ["git", "log", f"--since={SINCE}", "--no-merges", "--format=%s"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert [subject for subject in said.splitlines() if len(subject) > SUBJECT_MAX] == []
