"""Which Pythons are there: on PATH, and those of pyenv."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Those that the package is for."""
_PROBE: Final = """
import ensurepip, sys
print("%d.%d" % sys.version_info[:2], sys.version_info.releaselevel, sys.implementation.name)
"""


def find_python(version: str) -> str | None:
    """An interpreter of that version that can make an environment; `None` if there is none."""
    for path in _candidates(version):
        command = [path, "-I", "-c", _PROBE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.split() == [version, "final", "cpython"]:
            return path
    return None


def _candidates(version: str) -> Iterator[str]:
    if (found := shutil.which(f"python{version}")) is not None:
        yield found
    installed = Path.home() / ".pyenv" / "versions"
    yield from map(str, sorted(installed.glob(f"{version}.*/bin/python"), reverse=True))
