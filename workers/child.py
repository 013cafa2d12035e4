"""What a worker process does first and last: its signals, its name, its logging, its handler.

Imported in the worker only. It runs no event loop unless the handler needs one.
"""

from __future__ import annotations

import ctypes
import logging
import os
import random
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import eventlog.blocking
from eventlog import WriterUnavailable
from workers import forks, handlers, importing
from workers.control import RECEIVE_BYTES, ControlReader, packed_message
from workers.failing import TEXT_CHARACTERS_MAX, describe, storable, traceback_of
from workers.policy import Backoff, Recycling

if TYPE_CHECKING:
    from workers.worker import Worker

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
NAME_BYTES_MAX: Final = 15
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
FAILED_TO_START: Final = 3
"""The exit code of a worker that could not start and has said why."""
ORPHANED: Final = 4
"""The exit code of a worker whose pool is gone."""
RECORDS_WAITING_MAX: Final = 10_000
"""Log records that wait for a pool that does not read; those after them are lost."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything that a worker is told at its start."""

    path: str
    address: str
    """The path, with user and password where it had them: it is for nobody's eyes."""
    options: dict[str, Any]
    """Those of the pool's own handle."""
    group: str
    index: int
    pool_id: int
    parent_pid: int
    code: bytes
    """Handler and initializer."""
    output: str | None
    ordering: str | None
    max_deliveries: int
    backoff: Backoff
    concurrency: int
    recycling: Recycling
    log_level: int

    @property
    def name(self) -> str:
        """For `ps` and for log records."""
        return f"{self.group}/{self.index}"


class ControlEnd:
    """The worker's end of the pair."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._waiting: deque[bytes] = deque()

    def say(self, kind: str, *fields: Any) -> None:
        """Tell the pool; a pool that is gone needs to hear nothing.

        Whoever sends does so for all others too, and a log record does not wait for its turn: a
        signal handler that logs may have interrupted the very thread that sends.
        """
        is_record = kind == "log"
        if is_record and len(self._waiting) >= RECORDS_WAITING_MAX:
            return
        self._waiting.append(packed_message(kind, *fields))
        while self._waiting and self._sending.acquire(blocking=not is_record):
            try:
                with suppress(OSError, IndexError):
                    while True:
                        self._pipe.sendall(self._waiting.popleft())
            finally:
                self._sending.release()

    def watch(self, on_stop: Callable[[], None]) -> None:
        """In a thread of its own: call `on_stop` when told to; end the process with its pool."""
        threading.Thread(target=self._listen, args=(on_stop,), name="control", daemon=True).start()

    def _listen(self, on_stop: Callable[[], None]) -> None:
        reader = ControlReader()
        while True:
            try:
                data = self._pipe.recv(RECEIVE_BYTES)
            except OSError:
                data = b""
            if not data:
                os._exit(ORPHANED)
            for message in reader.receive(data):
                if message[0] == "stop":
                    on_stop()


class ControlHandler(logging.Handler):
    """Sends the worker's log records to its pool."""

    def __init__(self, control: ControlEnd) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what it holds besides text stays here."""
        try:
            error = record.exc_info[1] if record.exc_info else None
            self._control.say(
                "log",
                record.name,
                record.levelno,
                storable(record.getMessage()[:TEXT_CHARACTERS_MAX]),
                record.created,
                traceback_of(error) if error is not None else "",
            )
        except Exception:  # noqa: BLE001 - as the standard handlers do
            self.handleError(record)


def main(spec: WorkerSpec, pipe: socket.socket, times: int | None) -> None:
    """Be a worker until told to stop; the target of the process.

    `times`: the descriptor in which the pool looks for handlers that run too long.
    """
    _die_with(spec.parent_pid)
    _set_name(spec.name)
    _pass_over_interrupts()
    forks.watch()
    importing.worker_name = spec.name
    control = ControlEnd(pipe)
    root = logging.getLogger()
    root.handlers[:] = [ControlHandler(control)]
    root.setLevel(spec.log_level)
    random.seed()
    try:
        code = forks.call(handlers.unpacked, spec.code, handlers.new_script())
        if code.initializer is not None:
            forks.call(code.initializer)
        log = eventlog.blocking.open(spec.address, **spec.options)
        spec.recycling.check_start(private_bytes())  # a server's client may be most of it
        worker = _worker(spec, control, code, times)
        worker.join(log)
    except BaseException as error:  # noqa: BLE001 - also sys.exit in a user's module
        may_pass = isinstance(error, WriterUnavailable)
        control.say("failed", describe(error), traceback_of(error), may_pass)
        os._exit(FAILED_TO_START)
    with log, worker.member:
        _work(worker, control)


def _worker(
    spec: WorkerSpec, control: ControlEnd, code: handlers.Code, times: int | None
) -> Worker:
    from workers.worker import Worker

    return Worker(spec, control, code, times)


def _work(worker: Worker, control: ControlEnd) -> None:
    control.watch(worker.stop)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    control.say("ready", worker.member.member_id)
    if handlers.is_async(worker.handler) or worker.spec.concurrency > 1:
        from workers.work_together import run_together

        run_together(worker)
    else:
        worker.run()


def _die_with(parent_pid: int) -> None:
    """Be killed by the kernel when the pool's process ends, whatever ends it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before we asked
        os._exit(ORPHANED)


def _pass_over_interrupts() -> None:
    """Do nothing at SIGINT: a terminal's Ctrl-C is the pool's affair.

    A handler that does nothing, and not `SIG_IGN`: programs that are started would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.siginterrupt(signal.SIGINT, False)


def private_bytes() -> int:
    """The memory of this process that it shares with nobody: not the pages of mapped files."""
    try:
        with open("/proc/self/statm") as file:
            _, resident, shared, *_ = map(int, file.read().split())
            return (resident - shared) * PAGE_SIZE
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _set_name(name: str) -> None:
    """For `ps -o comm` and `top`; the whole name stands at the end of the command line."""
    with suppress(OSError, AttributeError):
        short = name.encode()[-NAME_BYTES_MAX:].decode(errors="ignore").encode()  # whole letters
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NAME, ctypes.c_char_p(short), 0, 0, 0)
