"""Starts of processes that cost little: forks of a process that has imported everything.

::

    test process                             nursery: a child of the test process
      | --- arguments, descriptors -----------> forks
      | <-- pid ------------------------------- the new process is a child of the test process too

Most of what a start costs is imports: 0.3 s of a core. Tests take it from here, but for those with
the mark `real_starts`, which are about how processes start. `eventlog.spawn` then does all that it
does otherwise, but for `subprocess.Popen`: the new process has the arguments, descriptors, working
directory, environment and parent that it would have, and its modules are there already. Commands of
`eventlog` and `workers` that a test runs to their end come from here too (`tests.commands`); what
they start in turn, they fork from themselves.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from importlib import import_module
from types import SimpleNamespace
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
MODULES: Final = (
    "eventlog.local.writer.__main__",
    "eventlog.local.writer.server",
    "argparse",
    "trio",
    "workers.process",
    "workers.child",
    "workers.worker",
)


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
            self._process = subprocess.Popen(
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
        if command[0] != self._executable or os.getpid() != self._pid:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=start_new_session,
            )
        with _all_descriptors(stdout, stderr, pass_fds) as descriptors:
            pid = self._fork(command, os.environ, descriptors, start_new_session)
        return SimpleNamespace(pid=pid)

    def run_command(
        self,
        command: Sequence[str],
        given: bytes,
        environment: Mapping[str, str],
        folder: str | os.PathLike[str] = ".",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `python -m eventlog ...`, or `workers`, to its end; what it printed."""
        inputs, outputs, errors = os.pipe(), os.pipe(), os.pipe()
        theirs = {0: inputs[0], 1: outputs[1], 2: errors[1]}
        try:
            pid = self._fork(command, environment, theirs, starts_session=False, folder=folder)
        finally:
            for one in theirs.values():
                os.close(one)
        said: dict[int, bytes] = {}
        threads = [
            threading.Thread(target=_give, args=(inputs[1], given)),
            *(
                threading.Thread(target=_take, args=(one, said, number))
                for number, one in ((1, outputs[0]), (2, errors[0]))
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess(command, code, said[1], said[2])

    def _fork(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
        starts_session: bool,
        folder: str | os.PathLike[str] = ".",
    ) -> int:
        """Have a process forked that has the descriptors of ours under the numbers before them."""
        here = os.open(folder, os.O_PATH)
        try:
            words = (list(command), dict(environment), list(descriptors), starts_session)
            data = msgpack.packb(words, unicode_errors="surrogateescape")
            with self._lock:
                socket.send_fds(self._socket, [data], [here, *descriptors.values()])
                return int(self._socket.recv(32))
        finally:
            os.close(here)


class Forks:
    """The side of a command that the nursery forked: in `eventlog.spawn`, for `subprocess`."""

    DEVNULL: Final = subprocess.DEVNULL

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


def _give(descriptor: int, data: bytes) -> None:
    """Write it all, unless the reader leaves."""
    with suppress(BrokenPipeError), open(descriptor, "wb", buffering=0) as pipe:
        while data:
            data = data[pipe.write(data) :]


def _take(descriptor: int, said: dict[int, bytes], number: int) -> None:
    with open(descriptor, "rb") as pipe:
        said[number] = pipe.read()


def serve() -> None:
    """Be the nursery: fork for each request, until the test process closes the socket."""
    for name in MODULES:
        __import__(name)
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()  # so that a fork shares what is there
    while True:
        data, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 64)
        if not data:
            return
        command, environment, places, starts_session = msgpack.unpackb(
            data, unicode_errors="surrogateescape"
        )
        if command[1] == "-m":
            _import_commands()
        if not (pid := _fork()):
            requests.detach()
            if starts_session:
                os.setsid()
            os.fchdir(descriptors[0])
            _place(descriptors[1:], places)
            os.environ.clear()
            os.environ.update(environment)
            _end(_code_of(command))
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


def _import_commands() -> None:
    """Import what the command lines import, once, here."""
    from eventlog.cli.app import COMMANDS

    for name in COMMANDS:
        import_module(f"eventlog.cli.{name}")
    import_module("workers.cli.app")


def _code_of(command: Sequence[str]) -> int:
    """Be what was asked for to its end; its exit code."""
    try:
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


def _become(command: Sequence[str]) -> None:
    """Be, after a fork, what was asked for, and run its code."""
    if command[1] == "-m":
        sys.argv = [*command[2:]]
        sys.path[0] = os.getcwd()
        vars(spawn)["subprocess"] = Forks()
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they are open to the end
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        return
    code = command.index("-c") + 1
    sys.argv = ["-c", *command[code + 1 :]]
    _show(command)
    for name in list(vars(sys.modules["__main__"])):
        if not name.startswith("__"):
            del vars(sys.modules["__main__"])[name]
    exec(command[code], vars(sys.modules["__main__"]))


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
