"""Starts of processes that cost little: forks of a process that has imported everything.

::

    test process                             nursery: a child of the test process
      | --- arguments, descriptors -----------> forks
      | <-- pid ------------------------------- the new process is a child of the test process too

Most of what a start costs is imports: 0.3 s of a core. Tests take it from here, but for those with
the mark `real_starts`, which are about how processes start. `eventlog.spawn` then does all that it
does otherwise, but for `subprocess.Popen`: the new process has the arguments, descriptors, working
directory, environment and parent that it would have, and its modules are there already. Programs
that a test starts itself come from here too (`tests.programs`); what they start in turn, they fork
from themselves.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import os
import pkgutil
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from importlib import import_module
from types import CodeType, SimpleNamespace
from typing import Any, Final, NoReturn

import msgpack

from eventlog import spawn

REQUEST_BYTES_MAX: Final = 128 * 1024
FROM: Final = 600
"""Descriptors that were received lie here and after, until each has its number."""
SHOWN_BYTES: Final = 4096
"""Room for the arguments and the variables that `/proc` shows of a process."""
CLONE_PARENT: Final = 0x8000
CLONE: Final = {"x86_64": 56, "aarch64": 220}
"""The number of the system call, by machine."""
IS_POSSIBLE: Final = platform.machine() in CLONE
PACKAGES: Final = ("eventlog.api", "eventlog.event", "eventlog.local", "workers")
MODULES: Final = (
    "argparse",
    "eventlog.blocking",
    "eventlog.local.writer.__main__",
    "multiprocess.resource_tracker",
    "trio",
)
OF_COMMANDS: Final = ("rich.markdown", "rich.traceback", "typer.rich_utils", "workers.cli.app")
"""What the command lines import once they have something to show."""
OF_ONE: Final = {"ui": ("eventlog.monitor.page.serving",)}
"""What one command imports late, and takes long."""


_Popen: Final = subprocess.Popen
"""What new processes are started by; tests find `tests.programs` under its name."""


class Nursery:
    """The side of the test process: in `eventlog.spawn` it stands in for `subprocess`."""

    DEVNULL: Final = subprocess.DEVNULL

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._lock = threading.Lock()
        self._executable = sys.executable
        self._pid = os.getpid()  # a child that a test forks starts what it starts itself
        with theirs:
            self._process = _Popen(
                [
                    sys.executable,
                    "-c",
                    "from tests.nursery import serve; serve()",
                    str(theirs.fileno()),
                    "-" * SHOWN_BYTES,
                ],
                pass_fds=[theirs.fileno()],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "ROOM": "-" * SHOWN_BYTES,
                },
            )

    def close(self) -> None:
        """End it; what it started goes on."""
        self._socket.close()
        self._process.wait()

    @staticmethod
    def _args_from_interpreter_flags() -> list[str]:
        return []

    def Popen(  # noqa: N802 - the name that `eventlog.spawn` calls
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int | None,
        stderr: int | None,
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> Any:
        """Start what `subprocess.Popen` would; the pid is all that the answer has."""
        if not self.is_for(command[0]):
            return _Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=start_new_session,
            )
        with _all_descriptors(stdout, stderr, pass_fds) as descriptors:
            pid = self.fork(command, os.environ, descriptors, starts_session=start_new_session)
        return SimpleNamespace(pid=pid)

    def is_for(self, executable: object) -> bool:
        """Whether it forks what this process starts by that name."""
        return executable == self._executable and os.getpid() == self._pid

    def fork(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
        *,
        starts_session: bool,
        folder: str | os.PathLike[str] = ".",
        is_program: bool = False,
    ) -> int:
        """Have a process forked that has the descriptors of ours under the numbers before them.

        A program is what a test starts itself, as `python -c` or `python -m`.
        """
        here = os.open(folder, os.O_PATH)
        try:
            places = list(descriptors)
            words = (list(command), dict(environment), places, starts_session, is_program)
            data = msgpack.packb(words, unicode_errors="surrogateescape")
            with self._lock:
                socket.send_fds(self._socket, [data], [here, *descriptors.values()])
                return int(self._socket.recv(32))
        finally:
            os.close(here)


class Forks:
    """The side of a program that the nursery forked: in `eventlog.spawn`, for `subprocess`."""

    DEVNULL: Final = subprocess.DEVNULL

    def __init__(self, executable: str) -> None:
        self._executable = executable

    @staticmethod
    def _args_from_interpreter_flags() -> list[str]:
        return []

    def Popen(  # noqa: N802 - the name that `eventlog.spawn` calls
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int | None,
        stderr: int | None,
        pass_fds: Sequence[int],
        start_new_session: bool,
    ) -> Any:
        """Fork what `subprocess.Popen` would start; the pid is all that the answer has."""
        if command[0] != self._executable:
            return _Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=start_new_session,
            )
        with _all_descriptors(stdout, stderr, pass_fds) as descriptors, ExitStack() as copied:
            # What is registered with `os.register_at_fork` closes those that only a new program is
            # to have.
            copies = [fcntl.fcntl(one, fcntl.F_DUPFD, FROM) for one in descriptors.values()]
            for one in copies:
                copied.callback(os.close, one)
            if not (pid := os.fork()):
                if start_new_session:
                    os.setsid()
                _forget_event_loop()
                _forget_signals()
                _place(copies, list(descriptors))
                _end(Context().run(_code_of, command))
        return SimpleNamespace(pid=pid)


@contextmanager
def _all_descriptors(
    stdout: int | None, stderr: int | None, others: Sequence[int]
) -> Iterator[dict[int, int]]:
    """Those of a new process: the number of each there, and here."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        standard = {0: nowhere, 1: 1 if stdout is None else nowhere, 2: stderr or 2}
        yield standard | {one: one for one in others}
    finally:
        os.close(nowhere)


def _forget_event_loop() -> None:
    """Be in none, though the process that was forked is."""
    from sniffio import thread_local
    from trio._core._run import GLOBAL_RUN_CONTEXT

    vars(GLOBAL_RUN_CONTEXT).clear()
    thread_local.name = None


def _forget_signals() -> None:
    """Give each signal that this process handles its default, as a new program has it."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)


def serve() -> None:
    """Be the nursery: fork for each request, until the test process closes the socket."""
    _import_all(*MODULES, *_modules_of(*PACKAGES))
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # so that a fork shares what is there
    while True:
        data, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 64)
        if not data:
            return
        command, environment, places, starts_session, is_program = msgpack.unpackb(
            data, unicode_errors="surrogateescape"
        )
        if command[1] == "-m":
            late = OF_ONE.get("".join(command[3:4]), ())
            _import_all(*OF_COMMANDS, *_modules_of("eventlog.cli"), *late)
        if not (pid := _fork()):
            requests.detach()
            if starts_session:
                os.setsid()
            os.fchdir(descriptors[0])
            _place(descriptors[1:], places)
            os.environ.clear()
            os.environ.update(environment)
            _end(_code_of(command, is_program))
        requests.send(str(pid).encode())
        for one in descriptors:
            os.close(one)


def _fork() -> int:
    """Fork a process that has the same parent as this one."""
    system = ctypes.PyDLL(None)
    nothing = ctypes.c_long(0)
    flags = ctypes.c_long(CLONE_PARENT | signal.SIGCHLD)
    number = ctypes.c_long(CLONE[platform.machine()])
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(system.syscall(number, flags, nothing, nothing, nothing, nothing))
    if pid:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    return pid


def _import_all(*names: str) -> None:
    for name in names:
        import_module(name)


def _modules_of(*packages: str) -> Iterator[str]:
    """The names of all modules in these packages; what only their command lines use comes later."""
    for package in packages:
        for found in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            if found.ispkg and not found.name.endswith(".cli"):
                yield from _modules_of(found.name)
            elif not found.name.endswith("__main__"):
                yield found.name


def _code_of(command: Sequence[str], is_program: bool = False) -> int:
    """Be what was asked for to its end; its exit code."""
    try:
        if is_program:
            _become_program(command)
        else:
            _become(command)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody catches
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End as an interpreter does, but leave the memory to the system: it is shared, and large."""
    threading._shutdown()  # type: ignore[attr-defined]  # it waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _become_program(command: Sequence[str]) -> None:
    """Be, after a fork, what a user would start, and what it starts are forks of it."""
    kind, *words = command[1:]
    if kind == "-W":
        warnings.simplefilter(words[0])  # type: ignore[arg-type]  # it is a word of the command line
        kind, *words = words[1:]
    sys.argv = {"-c": ["-c", *words[1:]], "-m": words}.get(kind, [kind, *words])
    first = {"-c": "", "-m": os.getcwd()}.get(kind, os.path.dirname(kind))
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [first, *filter(None, added), *sys.path[1:]]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    vars(spawn)["subprocess"] = Forks(command[0])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they are open to the end
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    match kind:
        case "-c":
            _run(command, words[0])
        case "-m":
            _show(command)
            if words[0] == "eventlog":
                _leave_commands(words[1:2])
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        case script:
            with open(script) as file:
                _run(command, compile(file.read(), script, "exec"), __file__=script)


def _leave_commands(first: Sequence[str]) -> None:
    """Have only the commands that a new process would have imported."""
    from eventlog.cli.app import COMMANDS, app

    modules = [f"eventlog.cli.{one}" for one, names in COMMANDS.items() if {*first} & {*names}]
    if modules:
        known = app.registered_commands
        app.registered_commands = [
            one for one in known if getattr(one.callback, "__module__", None) in modules
        ]


def _become(command: Sequence[str]) -> None:
    """Be, after a fork, what `eventlog.spawn` starts."""
    code = command.index("-c") + 1
    sys.argv = ["-c", *command[code + 1 :]]
    _run(command, command[code])


def _run(command: Sequence[str], code: str | CodeType, **names: object) -> None:
    _show(command)
    main = vars(sys.modules["__main__"])
    for name in list(main):
        if not name.startswith("__"):
            del main[name]
    main.update(names)
    exec(code, main)


def _place(descriptors: Sequence[int], places: Sequence[int]) -> None:
    """Give each descriptor its number, and close all others."""
    for shift, one in enumerate(descriptors):
        os.dup2(one, FROM + shift)
    os.closerange(0, FROM)
    for shift, place in enumerate(places):
        os.dup2(FROM + shift, place)
    os.closerange(FROM, FROM + len(descriptors))


def _show(command: Sequence[str]) -> None:
    """Have `/proc` show the arguments and the environment that the process has taken over."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    environment = [b"%b=%b" % item for item in os.environb.items()]
    _write(int(fields[45]), int(fields[46]), [os.fsencode(one) for one in command])
    _write(int(fields[47]), int(fields[48]), environment)


def _write(start: int, end: int, words: Sequence[bytes]) -> None:
    room = end - start
    ctypes.memmove(start, b"\0".join(words)[: room - 1].ljust(room, b"\0"), room)
