"""Commands of `eventlog` and `workers` that a shell starts: forks of the nursery, as programs are.

::

    bash ------- starts `eventlog`, a script in `folder` that loads next to nothing
    the script - arguments, variables, descriptors --> this process, which has the command forked
    the script <-------------- exit code ------------- and waits for it

The script costs a fraction of what a start of the command would. Commands have the descriptors,
variables and folder that they would have; the shell is not their parent, and cannot signal them.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.nursery import Nursery

NAMES: Final = ("eventlog", "workers")
BYTES_MAX: Final = 128 * 1024
SCRIPT: Final = """#!{python} -IS
import _socket, os, sys
door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
door.connect({door!r})
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
variables = [f"{{name}}={{value}}" for name, value in os.environ.items()]
said = "\\0".join([str(len(words)), *words, *variables])
here = os.open(".", os.O_PATH)
ancillary = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(
    one.to_bytes(4, sys.byteorder) for one in (0, 1, 2, here)))
door.sendmsg([os.fsencode(said)], [ancillary])
sys.exit(int(door.recv(8)))
"""


@contextmanager
def quick_commands(nursery: Nursery, folder: Path) -> Iterator[Path]:
    """The folder, with the commands in it; it is to be the first on the path."""
    folder.mkdir()
    place = str(folder / "door")
    for name in NAMES:
        script = folder / name
        script.write_text(SCRIPT.format(python=sys.executable, door=place))
        script.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(place)
        door.listen()
        usher = threading.Thread(target=_serve, args=(door, nursery))
        usher.start()
        try:
            yield folder
        finally:
            door.shutdown(socket.SHUT_RDWR)
            usher.join()


def _serve(door: socket.socket, nursery: Nursery) -> None:
    """Start each command that is asked for, those of a pipeline at the same time."""
    waiting: list[threading.Thread] = []
    while True:
        try:
            asker, _ = door.accept()
        except OSError:  # it was shut down
            break
        waiting.append(threading.Thread(target=_run, args=(asker, nursery)))
        waiting[-1].start()
    for one in waiting:
        one.join()


def _run(asker: socket.socket, nursery: Nursery) -> None:
    """Have a command forked; answer with its exit code, as a shell sees it."""
    with asker:
        data, (*standard, here), _, _ = socket.recv_fds(asker, BYTES_MAX, 4)
        count, *said = os.fsdecode(data).split("\0")
        words, variables = said[: int(count)], said[int(count) :]
        try:
            pid = nursery.fork(
                [sys.executable, "-m", *words],
                dict(one.split("=", 1) for one in variables),
                dict(enumerate(standard)),
                starts_session=False,
                folder=f"/proc/self/fd/{here}",
                is_program=True,
            )
        finally:
            for one in (*standard, here):
                os.close(one)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        asker.send(str(code if code >= 0 else 128 - code).encode())
