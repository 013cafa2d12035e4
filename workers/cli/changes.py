"""Whether Python files below a folder have changed: a look at their times, not at their content.

A look at a thousand files takes some milliseconds, so one each second is good enough for who edits
them, and needs no library with a watcher in native code.
"""

from __future__ import annotations

import os
from typing import Final

LOOK_S: Final = 1.0
"""How long a change may stay unseen."""
PASSED_OVER: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = dict[str, tuple[int, int]]


def snapshot(folder: str) -> Snapshot:
    """The time and the size of every `.py` file below the folder.

    Hidden folders, virtual environments and what was installed are passed over.
    """
    found: Snapshot = {}
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_looked_into(path, name)]
        for name in files:
            if name.endswith(".py"):
                _note(found, os.path.join(path, name))
    return found


def _is_looked_into(path: str, name: str) -> bool:
    if name.startswith(".") or name in PASSED_OVER:
        return False
    return not os.path.exists(os.path.join(path, name, "pyvenv.cfg"))


def _note(found: Snapshot, path: str) -> None:
    try:
        status = os.stat(path)
    except OSError:  # deleted since, or a link to nothing: as good as not there
        return
    found[path] = (status.st_mtime_ns, status.st_size)


def changed(before: Snapshot, now: Snapshot) -> list[str]:
    """The files that are new, gone or different."""
    return sorted({path for path, _ in before.items() ^ now.items()})
