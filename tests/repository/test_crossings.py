"""How many modules an append and a lease cross, in the client and in the writer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

INSIDE: Final = Path(__file__).parents[2] / "docs" / "inside.md"
TABLES: Final = INSIDE.read_text().split("| what happens |")[1:]
WAYS: Final = dict(zip(("append", "lease"), TABLES, strict=True))
"""What is entered on the way, step by step."""
MODULES_MAX: Final = {"append": 26, "lease": 25}
"""As many as there are: who adds one shows that it is worth it. The goals are 20 and 25."""


def room_of(module: str) -> str:
    return module.rpartition(".")[0] or module


def returns(stack: list[str]) -> bool:
    """Whether the call came back into a room that it had left."""
    rooms = [room_of(module) for module in stack]
    entered = [one for one, before in zip(rooms, [None, *rooms], strict=False) if one != before]
    return len(entered) != len(set(entered))


def test_an_append_and_a_lease_cross_few_modules_and_return_to_no_room(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.crossings", str(tmp_path / "log")]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert found.keys() == MODULES_MAX.keys()
    for name, stacks in found.items():
        crossed = {stack[-1] for stack in stacks}
        assert {"local.wire.connection", "local.writer.actor"} <= crossed
        assert len(crossed) <= MODULES_MAX[name], (name, sorted(crossed))
        assert crossed == set(re.findall(r"`(\w+\.[\w.]+)`", WAYS[name])), name
        assert [stack for stack in stacks if returns(stack)] == [], name


def test_a_call_that_comes_back_is_seen() -> None:
    assert returns(["local.writer.server", "local.groups.state", "local.writer.pipe"])
    assert not returns(["local.writer.server", "local.writer.actor", "local.groups.state"])
