"""How processes are started, writers and workers alike.

::

    this process                                the new one: sys.executable -c ...
      | --- a file: where modules are ---------> takes the signals as a fresh process has them,
      | <-- channel: ["alive"] ----------------- says that Python runs,
      | <-- channel: ["broken", error, text] --- or that the module cannot be imported,
      | <-- channel: the module's own words ---- and calls the module's function

What stands in the file and on the channel depends on nothing that was installed: the first lines of
the new process run before any module is found. So it finds the modules that this process finds,
wherever they come from (a zip file, a folder that was added to `sys.path`), and names the one that
is missing. Messages on the channel are MessagePack arrays. Nothing else is said through it: what
others print, such as `sitecustomize`, goes elsewhere.

Whoever starts a process waits `ANSWER_S` for the first word. A program that is no Python never says
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import eventlog
from eventlog.system import hold_standard_descriptors

ANSWER_S: Final = 8.0
"""How long Python may take to start: 0.03 s on an idle machine."""

BOOTSTRAP: Final = b"""
def begin(file):
    import _signal, os, sys
    for name in ("begin", "os"):
        vars(sys.modules["__main__"]).pop(name)
    def taken():
        return os.read(file, int.from_bytes(os.read(file, 4), "big"))
    kept = [int(one) for one in taken().split()]
    channel = kept[0]
    def say(*words):
        data = bytes([0x90 + len(words)])
        for word in words:
            text = word.encode("utf-8", "backslashreplace")
            data += b"\\xdb" + len(text).to_bytes(4, "big") + text
        try:
            while data:
                data = data[os.write(channel, data):]
        except OSError:
            os._exit(4)
    say("alive")
    for one in (*kept, file):
        os.set_inheritable(one, False)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for number in (_signal.SIGTERM, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, lambda *_: None)
    tag, module, function = taken().decode().split()
    if tag != sys.implementation.cache_tag:
        say("broken", "it is %s, and this process is %s" % (sys.implementation.cache_tag, tag), "")
        os._exit(3)
    sys.path[:] = [os.fsdecode(one) for one in taken().split(b"\\0")]
    try:
        __import__(module)
        function = getattr(sys.modules[module], function)
    except BaseException as error:
        try:
            import traceback
            text = traceback.format_exc()
        except BaseException:
            text = ""
        say("broken", "%s: %s" % (type(error).__name__, error), text)
        os._exit(3)
    function(file)
"""
"""What the new process runs first, from the file; it must run in any Python 3.

The handler of SIGINT does nothing: a terminal's Ctrl-C is the business of the process that starts
others. It is a handler because programs that the new process starts get the default action then; if
SIGINT were ignored, they would ignore it too.
"""


class CannotStart(Exception):
    """The operating system refuses to start a process; for the caller to say of what."""


def start(
    module: str,
    function: str,
    arguments: Sequence[str],
    *,
    channel: int,
    keep: Sequence[int] = (),
    payload: bytes | memoryview = b"",
    script_folder_last: bool = False,
    in_background: bool = False,
    errors: int | None = None,
) -> int:
    """Start a process that imports the module and calls its function; the pid.

    The function is called with a descriptor from which it reads the payload. `arguments` are in its
    `sys.argv`. The new process has `channel` and `keep` under the same numbers as here, and no
    other descriptor but the standard ones; its standard input is empty. With `in_background` it is
    in a session of its own and has no standard output. `errors`: its standard error. Who calls
    this waits for the process.

    Raises:
        CannotStart: there is no such program, or no descriptor, process or memory left.
    """
    if not sys.executable:
        raise CannotStart(f"sys.executable is {sys.executable!r}; {hint()}")
    try:
        hold_standard_descriptors()
        file = os.memfd_create("eventlog-start")
        try:
            _fill(file, [channel, *keep], module, function, payload, last=script_folder_last)
            code = f"import os; exec(os.read({file}, {len(BOOTSTRAP)})); begin({file})"
            process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if in_background else None,
                stderr=errors,
                pass_fds=[file, channel, *keep],
                start_new_session=in_background,
            )
        finally:
            os.close(file)
    except (OSError, ValueError) as error:  # ValueError: a null byte in its name
        is_about_program = isinstance(error, ValueError) or error.filename == sys.executable
        reason = f"starting {sys.executable!r} failed: {error}"
        raise CannotStart(f"{reason}; {hint()}" if is_about_program else reason) from error
    process.returncode = 0  # our callers wait for it, and `subprocess` is not to
    return process.pid


def hint() -> str:
    """What to do if `sys.executable` is not this Python."""
    return "it has to be a Python interpreter of this version, which can be set: sys.executable = …"


def _flags() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _fill(
    file: int,
    descriptors: Sequence[int],
    module: str,
    function: str,
    payload: bytes | memoryview,
    *,
    last: bool,
) -> None:
    parts = [
        " ".join(map(str, descriptors)).encode(),
        f"{sys.implementation.cache_tag} {module} {function}".encode(),
        b"\0".join(os.fsencode(one) for one in search_path(script_folder_last=last)),
    ]
    with open(file, "wb", closefd=False) as stream:
        stream.write(BOOTSTRAP)
        stream.writelines(len(part).to_bytes(4, "big") + part for part in parts)
        stream.write(payload)
    os.lseek(file, 0, os.SEEK_SET)


def search_path(*, script_folder_last: bool) -> list[str]:
    """Where this process finds modules, as paths that mean the same in every process.

    Python puts the folder of the script first. Modules that a script has beside it, and that bear
    the name of one that it does not use itself, hurt nobody here; put last, they hurt no writer.
    """
    found = [one for one in map(_absolute, sys.path) if one is not None]
    home = os.path.dirname(os.path.dirname(os.path.abspath(eventlog.__file__)))
    if script_folder_last and found and not sys.flags.safe_path:
        found = [*found[1:], found[0]]
    if home not in found or found[-1] == home:
        found.insert(0, home)
    return found


def _absolute(entry: object) -> str | None:
    if not isinstance(entry, str):
        return None
    try:
        return os.path.abspath(entry)
    except (OSError, ValueError):
        return None  # relative to a working directory that was deleted
