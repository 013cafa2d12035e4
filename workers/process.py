"""One worker process: started by `multiprocess`, watched through a pidfd, and waited for.

Four things are not as `multiprocess` does them. The child does not run the user's main script
again (handlers from it travel by value), so scripts need no `if __name__ == "__main__"`. It is
started as a writer is (`eventlog.spawn`). No resource tracker is started. And the child is waited
for with `wait4`, which tells how much memory it had.
"""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import multiprocess
import multiprocess.process
from multiprocess import popen_spawn_posix
from multiprocess.context import SpawnProcess, reduction, set_spawning_popen

from eventlog import spawn
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

    def __init__(self, process_obj: Any, title: str, channel: int, kept: list[int]) -> None:
        self._title = title
        self._channel = channel
        self._kept = kept
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(_preparation(process_obj.name), buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.pid = spawn.start(
            "workers.process",
            "begin",
            # The name at the end is for `ps`.
            ["workers", str(self._channel), self._title],
            channel=self._channel,
            keep=[one for one in (*self._fds, *self._kept) if one != self._channel],
            payload=buffer.getbuffer(),
        )
        self.sentinel = None  # the pool waits for the pidfd

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


def _preparation(name: str) -> dict[str, Any]:
    """What `multiprocess` tells a new process of this one.

    Not the working directory, which may be deleted and is the same anyway; nor the main script.
    """
    return {
        "name": name,
        "authkey": multiprocess.process.current_process().authkey,
        "sys_argv": sys.argv,
        "orig_dir": multiprocess.process.ORIGINAL_DIR,
        "start_method": multiprocess.get_start_method(),
    }


def begin(start: int) -> NoReturn:
    """Be a worker: what `spawn.start` has a new process do."""
    from multiprocess import resource_tracker
    from multiprocess import spawn as children

    # `multiprocess` would start one more process, which cleans up after its shared memory and
    # semaphores; no worker is given any.
    resource_tracker._resource_tracker._fd = os.open(os.devnull, os.O_WRONLY)
    # The end of the pool closes the channel: so handlers may ask whether their parent lives.
    parent = os.dup(int(sys.argv[2]))
    sys.exit(children._main(start, parent))


class _Process(SpawnProcess):  # type: ignore[misc]  # multiprocess has no types
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:  # noqa: N802 - the name that multiprocess calls
        return _Popen(process_obj, process_obj.name, process_obj.channel, process_obj.kept)


class WorkerProcess:
    """A worker that was started; whoever starts it reaps it."""

    def __init__(self, spec: WorkerSpec, pipe: socket.socket, times: int | None) -> None:
        name = f"worker {spec.name}"
        process = _Process(target=child.main, args=(spec, pipe, times), name=name)
        process.channel = pipe.fileno()
        process.kept = [] if times is None else [times]
        process.start()
        # The pool waits for it; and should this process end without that, the kernel ends it. So
        # `multiprocess` need not wait at exit, and handlers may start processes of their own.
        multiprocess.process._children.discard(process)
        self._popen: _Popen = process._popen
        self._process = process
        self.pid: int = self._popen.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
            """Readable once the process has ended."""
        except (OSError, AttributeError) as error:
            os.kill(self.pid, signal.SIGKILL)  # nobody would notice its end
            process.join()
            raise spawn.CannotStart(
                f"its process cannot be watched (pidfd_open: {error})"
            ) from error

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
