"""The kinds of code that scripts have: each works in a worker, or is refused before there is one.

`kinds.py` has them. It runs once, as a script; each test looks at what became of one kind.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from eventlog.demo.main_job import stop_process
from tests.pools import kinds
from tests.pools.parts import MARK, ROOT, marked_processes

SCRIPT: Final = Path(kinds.__file__)
PACKED_S_MAX: Final = 10.0
"""It takes half a second for the largest, on a machine that has nothing else to do."""

CULPRITS: Final = {
    "connection_in_a_function": "uses_a_connection -> CONNECTION -> a sqlite3.Connection cannot",
    "connection_in_a_container": "HOLDER -> its entry 'inner' -> its entry -> a sqlite3.Connection",
    "connection_of_a_bound_method": "its object -> its attribute connection -> a sqlite3.Conn",
    "generator": "NUMBERS -> <genexpr>, a generator, cannot",
    "frame": "FRAME -> a frame cannot",
    "open_file": "an open file cannot be sent: ",
    "script_as_a_module": "the script's own module cannot be sent as a whole",
    "unreadable": "ODD -> a __main__.Odd cannot leave",
}
"""What each error says of the thing that cannot travel."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script has found."""
    mark = secrets.token_hex(8)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("kinds") / "log")],
        env=os.environ | {"PYTHONPATH": str(ROOT), MARK: mark},
        stdout=subprocess.PIPE,
        check=False,
        timeout=100,
    )
    for pid in marked_processes(mark):
        stop_process(pid)
    assert done.returncode == 0
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_kind_does_in_a_worker_what_it_does_in_the_script(
    found: dict[str, Any], name: str
) -> None:
    """Structs, enums, models, type variables, dispatchers and caches of a script were refused.

    Or they went through, and failed in the worker: what was tried was whether the script itself
    could read the bytes, which has all those names in its `__main__`.
    """
    assert found["refused"].get(name) is None
    assert found["letters"].get(name) is None
    assert found["came"][name] == found["wanted"][name]


@pytest.mark.parametrize("name", kinds.REFUSED)
def test_what_cannot_travel_is_refused_and_named(found: dict[str, Any], name: str) -> None:
    error = found["refused"][name]
    assert error.startswith("InvalidHandler: the handler ")
    assert CULPRITS[name] in error
    assert "put the code that needs it into a module" in error
    assert name not in found["came"]


def test_even_a_hundred_functions_that_call_each_other_are_packed_at_once(
    found: dict[str, Any],
) -> None:
    """They took 20 s with each other's globals packed again and again, and then were refused."""
    assert found["seconds"]["hundred_helpers"] < PACKED_S_MAX
    assert found["seconds"]["long_chain"] < PACKED_S_MAX


def test_packing_leaves_the_scripts_classes_as_they_are(found: dict[str, Any]) -> None:
    assert found["is_untouched"]
