"""`docs/engines.md` says what engines lack by the data that this suite skips tests by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

import eventlog

from .backends import BACKENDS, Ability

PAGE: Final = Path(eventlog.__file__).parent.parent / "docs" / "engines.md"
BEGIN: Final = "<!-- table: what engines lack -->\n"
END: Final = "<!-- end -->\n"
SHOWN: Final = ("local", "memory", "valkey", "jetstream", "kafka")
"""The engines of the table; Redis lacks what Valkey does."""


def table() -> str:
    """As it stands in the page."""
    lines = []
    for ability in get_args(Ability):
        for backend in BACKENDS:
            if backend.name in SHOWN and ability in backend.lacks:
                engine = "redis" if backend.name == "valkey" else backend.name
                lines.append(f"| {engine} | {ability} | {backend.lacks[ability]} |\n")
    return "\n| engine | lacks | because |\n|---|---|---|\n" + "".join(sorted(lines)) + "\n"


def test_the_page_of_the_engines_has_the_table() -> None:
    text = PAGE.read_text()
    found = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, re.DOTALL)
    assert found is not None
    assert found[1] == table(), f"put this between the two comments:\n{table()}"


def test_redis_and_valkey_lack_the_same() -> None:
    by_name = {backend.name: backend.lacks for backend in BACKENDS}
    assert by_name["redis"] == by_name["valkey"]
