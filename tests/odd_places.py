"""Programs that run where things are missing: without descriptors, modules or a working directory.

A test hands one to `run`, which starts it in a process of its own. The program says what it has
found by `say`, in a file: it may have no standard output.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_S: Final = 60
"""Only a hang takes that long."""

PRELUDE: Final = """
import os, sys

def say(*words):
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, (repr(words) + "\\n").encode())
    os.close(file)

def said_by(call, *arguments):
    try:
        return call(*arguments)
    except BaseException as error:
        return type(error).__name__, str(error)

def files_of(pid, numbers=range(3)):
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in numbers]
"""


def run(
    program: str,
    tmp_path: Path,
    *arguments: str,
    python: tuple[str, ...] = (sys.executable,),
    is_closed: bool = False,
    **options: Any,
) -> list[tuple[Any, ...]]:
    """What the program said; `is_closed`: it has no standard descriptors."""
    report, errors = tmp_path / "said", tmp_path / "errors"
    command = [*python, "-c", PRELUDE + textwrap.dedent(program), str(report), *arguments]
    if is_closed:
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    with errors.open("wb") as stderr:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
            timeout=LIMIT_S,
            check=False,
            **options,
        )
    assert done.returncode == 0, errors.read_text()[-4000:]
    return [ast.literal_eval(line) for line in report.read_text().splitlines()]
