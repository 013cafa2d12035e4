"""Every wait of the package stands in `docs/waits.md`, with who wakes it in each way of ending."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import eventlog

ROOT: Final = Path(eventlog.__file__).parent.parent
TABLE: Final = ROOT / "docs" / "waits.md"
WAITING: Final = {
    *("wait", "wait_for", "wait_changed", "wait_readable", "wait_writable", "wait_done"),
    *("_wait", "_wait_noting_silence"),
    *("join", "acquire", "result", "recv", "recv_fds", "poll", "flock", "call", "unless_it_ends"),
    *("waitpid", "wait4"),
}
"""The names of calls that wait, or may."""
LEFT_OUT: Final = ("eventlog/demo/", "eventlog/cli/", "workers/cli/", "eventlog/testing.py")
"""Programs, which end with their process."""


def waits_of(path: Path) -> Iterator[str]:
    """`module.function` of each call that waits."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def walk(node: ast.AST, name: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = child.name
            if isinstance(child, ast.Call) and is_wait(child):
                yield f"{module}.{inner}"
            yield from walk(child, inner)

    return walk(ast.parse(path.read_text()), "")


def is_wait(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in WAITING:
        return False
    if function.attr == "join":  # of texts and paths
        texts = isinstance(function.value, ast.Constant) or ast.unparse(function.value) in (
            *("os.path", "os.pathsep", "os.linesep", "b''"),
        )
        return not texts and len(call.args) <= 1
    return True


def test_every_wait_stands_in_the_table_and_every_row_is_a_wait() -> None:
    """A new one says there who wakes it when the other side ends, however it ends.

    A row `module.*` is for a module whose functions all wait in the same way.
    """
    paths = [*(ROOT / "eventlog").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    found = {
        wait
        for path in paths
        if not str(path.relative_to(ROOT)).startswith(LEFT_OUT)
        for wait in waits_of(path)
    }
    listed = re.findall(r"^\| `([\w.]+\*?)` \|", TABLE.read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    all_of_module = {f"{wait.rpartition('.')[0]}.*" for wait in found}
    rows = set(listed)
    assert rows - found - all_of_module == set(), "rows of docs/waits.md that are no waits any more"
    without = {w for w in found - rows if f"{w.rpartition('.')[0]}.*" not in rows}
    assert without == set(), "waits without a row in docs/waits.md"


def test_every_row_says_who_wakes_it() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row
