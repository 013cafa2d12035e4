"""The processes of one run: started together, spoken to over pipes, and gone afterwards.

::

    Crew.start(role) --spawn--> role(link)          a function of the child, with its end of a pipe
    Crew.hear(member) <-------- link.say(value)     or what went wrong in the child: RunFailed
    Crew.tell(member) --------> link.wait()         returns; or the child ends, if the crew is gone

A child that dies, raises or says nothing for too long fails the run with its own traceback. After
the block all are gone, and were waited for: those that still run are ended by a signal.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from benchmark import interrupts

SILENCE_S_MAX: Final = 90.0
"""How long a child may take for one step: ten times what the slowest should need."""
END_S_MAX: Final = 5.0
"""How long a child may take to end, once it has nothing more to do, before it is killed."""


class RunFailed(Exception):
    """One run of one contender went wrong; the message says what, with the child's traceback."""


class _Raised(NamedTuple):
    """The child's last words: the traceback of what its role raised."""

    traceback: str


class _Ended(NamedTuple):
    """The child's last words: its role has returned."""


class Link:
    """The child's end of its pipe."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe

    def say(self, value: object) -> None:
        """Tell the crew a value, which it `hear`s."""
        self._pipe.send(value)

    def wait(self) -> None:
        """Wait until the crew `tell`s this process to go on.

        Raises:
            SystemExit: there is no crew any more.
        """
        try:
            self._pipe.recv()
        except EOFError:
            raise SystemExit(0) from None


Role = Callable[[Link], None]
"""What a child does; it is pickled, so it is a function, a bound method or a partial of one."""


def _run_role(role: Role, pipe: Connection[Any, Any]) -> None:
    try:
        role(Link(pipe))
    except Exception:  # noqa: BLE001 - the crew raises it again
        pipe.send(_Raised(traceback.format_exc()))
        raise SystemExit(1) from None
    pipe.send(_Ended())


class Member:
    """A child, as its crew sees it."""

    def __init__(self, name: str, process: SpawnProcess, pipe: Connection[Any, Any]) -> None:
        self.name = name
        self.process = process
        self.pipe = pipe
        self.heard: deque[Any] = deque()
        self.has_ended = False

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process.pid is not None
        return self.process.pid

    def take(self) -> None:
        """Receive what the child has said.

        Raises:
            RunFailed: it raised, or died without a word.
        """
        try:
            value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(END_S_MAX)
            raise RunFailed(
                f"the {self.name} died with exit code {self.process.exitcode}"
            ) from None
        if isinstance(value, _Raised):
            raise RunFailed(f"the {self.name} failed:\n{value.traceback}")
        if isinstance(value, _Ended):
            self.has_ended = True
        else:
            self.heard.append(value)


class Crew:
    """The processes of one run, as a context manager."""

    def __init__(self) -> None:
        self._members: list[Member] = []

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until all have ended, or, if the block failed, end them.

        Raises:
            RunFailed: one failed on its way out, or had to be ended.
        """
        try:
            if kind is None:
                self._listen(lambda member: member.has_ended, self._members, END_S_MAX)
        finally:
            for member in self._members:
                member.process.terminate()
            for member in self._members:
                member.pipe.close()
                _reap(member.process)

    def start(self, name: str, role: Role) -> Member:
        """Start a process that runs `role`; `name` is for error messages."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run_role, args=(role, theirs), name=name, daemon=True)
        with interrupts.held(), _without_ctrl_c():
            process.start()
            theirs.close()  # so that the child's end is the only one, and its death is noticed
            self._members.append(Member(name, process, ours))
        return self._members[-1]

    def tell(self, *members: Member) -> None:
        """Let these go on."""
        for member in members:
            with suppress(BrokenPipeError):  # it had nothing left to wait for, or `hear` will tell
                member.pipe.send(None)

    def hear(self, *members: Member) -> list[Any]:
        """The next value of each of these.

        Raises:
            RunFailed: one of the crew failed, or one of these said nothing for too long.
        """
        self._listen(lambda member: bool(member.heard), members, SILENCE_S_MAX)
        return [member.heard.popleft() for member in members]

    def _listen(
        self, is_done: Callable[[Member], bool], members: Sequence[Member], seconds: float
    ) -> None:
        """Take what anyone says until these are done.

        Raises:
            RunFailed: one of the crew failed, or time ran out.
        """
        deadline = time.monotonic() + seconds
        while not all(map(is_done, members)):
            speaking = {m.pipe: m for m in self._members if not m.has_ended}
            ready = connection.wait(list(speaking), max(deadline - time.monotonic(), 0.0))
            if not ready:
                silent = ", ".join(member.name for member in members if not is_done(member))
                raise RunFailed(f"nothing from the {silent} for {seconds:.0f} s")
            for pipe in ready:
                speaking[pipe].take()  # type: ignore[index]  # only our own pipes are waited for


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Children inherit the mask: Ctrl-C reaches them too, and the crew decides what it means."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap(process: SpawnProcess) -> None:
    """Wait for a process that was asked to end; one that doesn't is killed."""
    process.join(END_S_MAX)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()
