"""`docs/inside.md` says where to change what: its files are there, and have what it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import eventlog

ROOT: Final = Path(eventlog.__file__).parent.parent
TEXT: Final = (ROOT / "docs" / "inside.md").read_text()
TABLE: Final = TEXT.partition("## Where to change what")[2].partition("\n## ")[0]
ROWS: Final = dict(re.findall(r"^\| (.+?) \| (.+) \|$", TABLE, re.MULTILINE)[1:])
CHANGES: Final = {
    "a header field of a batch",
    "how a parked reader is woken",
    "when a pool retries",
    "a new engine",
    "what happens at a torn tail",
    "a new command",
    "a new message",
    "how long an idle writer lingers",
    "a new metric",
}
"""What a stranger is to find from the tree alone."""


def test_the_nine_changes_have_a_place() -> None:
    assert ROWS.keys() >= CHANGES


def folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


@pytest.mark.parametrize("change", ROWS)
def test_the_place_of_a_change_is_there(change: str) -> None:
    files: list[Path] = []
    names: list[str] = []
    for word in re.findall(r"`([^`]+)`", ROWS[change]):
        if "/" in word or word.endswith(".py"):
            files.append(ROOT / word if "/" in word else folder_of(files[-1]) / word)
            assert files[-1].exists(), word
        else:
            names.append(word)
    assert files, "no file is named"
    sources = [path for path in [*files, ROOT / "pyproject.toml"] if path.is_file()]
    text = "".join(path.read_text() for path in sources)
    for name in names:
        assert re.search(rf"\b{re.escape(name)}\b", text), name
