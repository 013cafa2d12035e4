"""One worker process: started by `multiprocess`, watched through a pidfd, and waited for.

Three things are not as `multiprocess` does them. The child does not run the user's main script
again (handlers from it travel by value), so scripts need no `if __name__ == "__main__"`. No
resource tracker is started. And the child is waited for with `wait4`, which tells how much memory
it had.
"""

from __future__ import annotations

import io
import os
import select
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import multiprocess.process
from multiprocess import popen_spawn_posix, spawn, util
from multiprocess.context import SpawnProcess, reduction, set_spawning_popen

from workers import child
from workers.child import WorkerSpec

KIB: Final = 1024
UNKNOWN: Final = 255


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended."""

    exit_code: int | None
    """Negative: killed by that signal. `None`: others have reaped it, so nobody knows."""
    peak_rss_bytes: int

    @property
    def description(self) -> str:
        """For a sentence: `was killed by SIGSEGV`, or `exited with code 3`."""
        if self.exit_code is None:
            return "ended (exit code unknown: SIGCHLD is ignored, or other code reaps children)"
        if self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"exited with code {self.exit_code}"


class _Popen(popen_spawn_posix.Popen):  # type: ignore[misc]  # multiprocess has no types
    """A spawned child; see the module."""

    peak_rss_bytes = 0
    returncode: int | None

    def __init__(self, process_obj: Any, title: str) -> None:
        self._title = title
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        for name in ("init_main_from_name", "init_main_from_path"):
            preparation.pop(name, None)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        # `multiprocess` would start one more process, which cleans up after its shared memory and
        # semaphores; no worker is given any.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            self._spawn(buffer, nowhere)
        finally:
            os.close(nowhere)

    def _spawn(self, buffer: io.BytesIO, tracker: int) -> None:
        parent_r, child_w = os.pipe()
        child_r, parent_w = os.pipe()
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_r)
            self._fds += [tracker, child_r, child_w]
            # The name at the end is for `ps`; the child looks at the first arguments only.
            self.pid = util.spawnv_passfds(
                spawn.get_executable(), [*command, self._title], self._fds
            )
        finally:
            os.close(child_r)
            os.close(child_w)
        self.sentinel = parent_r
        self.finalizer = util.Finalize(self, util.close_fds, [parent_r, parent_w])
        with suppress(BrokenPipeError), open(parent_w, "wb", closefd=False) as pipe:
            pipe.write(buffer.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """As in `multiprocess`, but with what the kernel knows of the child's memory."""
        if self.returncode is None:
            try:
                pid, status, usage = os.wait4(self.pid, flag)
            except OSError:
                return None
            if pid == self.pid:
                self.peak_rss_bytes = usage.ru_maxrss * KIB
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class _Process(SpawnProcess):  # type: ignore[misc]  # multiprocess has no types
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:  # noqa: N802 - the name that multiprocess calls
        return _Popen(process_obj, process_obj.name)


class WorkerProcess:
    """A worker that was started; whoever starts it reaps it."""

    def __init__(self, spec: WorkerSpec, pipe: socket.socket) -> None:
        process = _Process(target=child.main, args=(spec, pipe), name=f"worker {spec.name}")
        process.start()
        # The pool waits for it; and should this process end without that, the kernel ends it. So
        # `multiprocess` need not wait at exit, and handlers may start processes of their own.
        multiprocess.process._children.discard(process)
        self._popen: _Popen = process._popen
        self._process = process
        self.pid: int = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)
        """Readable once the process has ended."""

    def __repr__(self) -> str:
        """The pid."""
        return f"<WorkerProcess {self.pid}>"

    def kill(self) -> None:
        """End it now."""
        if self._popen.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> Ending:
        """How it ended; waits for the end."""
        if self.pidfd >= 0:
            end = select.poll()
            end.register(self.pidfd, select.POLLIN)
            end.poll()
        ending = Ending(self._popen.poll(0), self._popen.peak_rss_bytes)
        if ending.exit_code is None:
            self._popen.returncode = UNKNOWN  # else `multiprocess` takes it for alive
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        return ending

    def close(self) -> None:
        """Give back what `multiprocess` holds of it."""
        self._process.close()
