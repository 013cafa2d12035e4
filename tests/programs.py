"""Programs that tests start with `subprocess`: forks of the nursery, that import nothing.

In a test that has not the mark `real_starts`, `subprocess.Popen` is a class of here. What it starts
as `python -c`, or as one of the programs below, is forked (tests/nursery.py), also with `-W error`;
all else is started as ever, and so is what is to have a user, a locale or another option of Python
of its own. The process has the pid, pipes, folder, environment and parent that it would have. What
it is not: an interpreter that has loaded nothing yet, and one that destroys what it has made when
it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tests.nursery import Nursery

COMMANDS: Final = ("eventlog", "workers", "eventlog.local.writer", "tests.killed_jobs")
SCRIPTS: Final = ("kill_parts.py", "parents.py", "program.py")
STRICT: Final = ["-W", "error"]
OF_INTERPRETERS: Final = ("PYTHON", "LC_", "LANG")
"""How variables begin that only the start of an interpreter looks at ..."""
AFTERWARDS: Final = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""... but for those that a fork can look at too."""

if TYPE_CHECKING:
    Popen = subprocess.Popen[Any]
else:
    Popen = subprocess.Popen


def popen_by(nursery: Nursery) -> type[Popen]:
    """The class that stands in for `subprocess.Popen`."""

    class Forked(Popen):
        def _execute_child(self, *asked: Any) -> None:
            args, _, _, _, pass_fds, cwd, env, _, _, _, *rest = asked
            if not (nursery.is_for(_first(args)) and _can_be_forked(asked)):
                super()._execute_child(*asked)  # type: ignore[misc]  # it is private
                return
            pipes, starts_session = rest[:6], rest[11]
            standard = enumerate((pipes[0], pipes[3], pipes[5]))
            places = {number: number if one == -1 else one for number, one in standard}
            self.pid = nursery.fork(
                [os.fsdecode(word) for word in args],
                os.environ if env is None else env,
                places | {one: one for one in pass_fds},
                starts_session=starts_session,
                folder=cwd or ".",
                is_program=True,
            )
            self._child_created = True
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # as the class before does

    return Forked


def _first(args: Any) -> object:
    return args[0] if isinstance(args, list | tuple) else None


def _can_be_forked(asked: tuple[Any, ...]) -> bool:
    """Whether the nursery knows how to make what is asked of `_execute_child`."""
    args, executable, preexec, close_fds, _, _, env, _, _, shell, *rest = asked
    (gid, gids, uid, umask), process_group = rest[7:11], rest[12]
    is_usual = (preexec, gid, gids, uid, umask, process_group) == (None, None, None, None, -1, -1)
    kind, *words = args[3:] if list(args[1:3]) == STRICT else args[1:]
    is_command = kind == "-m" and words[0] in COMMANDS
    is_known = kind == "-c" or is_command or os.path.basename(kind) in SCRIPTS
    is_ours = executable in (None, args[0], sys.executable)
    return is_usual and is_known and is_ours and close_fds and not shell and _is_usual(env)


def _is_usual(env: Mapping[str, str] | None) -> bool:
    """Whether an interpreter with these variables starts as this one did."""
    return env is None or all(
        env.get(name) == os.environ.get(name)
        for name in env.keys() | os.environ.keys()
        if name.startswith(OF_INTERPRETERS) and name not in AFTERWARDS
    )
