"""What goes wrong: one fault after the other, chosen by a seed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgpack
import trio

from chaos.remaking import RemadeLog
from eventlog import EventLogError
from eventlog.local.rendezvous import connect
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.connection import frame
from eventlog.local.wire.messages import HELLO_MAGIC, PROTOCOL_VERSION, Hello, Park

KEPT_SOCKETS_MAX = 30
FAULTS_PER_S = 2.5
FOUND = Path(__file__).parents[2] / "tests" / "fuzz" / "corpus" / "pipe-to-client.msgpack"
"""What `scripts/fuzz` keeps of what a writer says: a client that does must be dropped."""


def writer_of(log_path: str) -> int | None:
    """The process that serves a log now."""
    try:
        reader = LogReader(log_path)
    except EventLogError:
        return None
    try:
        return reader.control.running_writer
    finally:
        reader.close()


def children_of(pid: int) -> list[int]:
    """The worker processes of a pool."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():  # whichever thread started them
            found += map(int, (task / "children").read_text().split())
    return found


class Faults:
    """Makes faults until it is cancelled; `counts` says how many of each kind there were."""

    def __init__(
        self,
        seed: int,
        logs: list[str],
        roles: Callable[[], dict[str, int]],
        room: Path | None,
        remade: RemadeLog,
    ) -> None:
        self._chance = random.Random(seed)
        self._logs = logs
        self._roles = roles
        """The processes that run now, by their name."""
        self._room = room
        """A small file system, or none."""
        self._remade = remade
        self._found: list[bytes] = msgpack.unpackb(FOUND.read_bytes())
        self._sockets: list[socket.socket] = []
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """One fault after the other."""
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._kill_role, 6),
            (self._kill_worker, 5),
            (self._kill_writer, 3),
            (self._stop, 2),
            (self._talk_garbage, 2),
            (self._never_read, 1),
            (self._delete, 2),
            (self._fill, 1 if self._room else 0),
        ]
        weights = [weight for _, weight in kinds]
        try:
            while True:
                await trio.sleep(self._chance.expovariate(FAULTS_PER_S))
                ((fault, _),) = self._chance.choices(kinds, weights)
                await fault()
        finally:
            for one in self._sockets:
                one.close()

    def _signal(self, pid: int, number: signal.Signals, what: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            self.counts[what] += 1

    async def _kill_role(self) -> None:
        roles = sorted(self._roles().items())
        if not roles:
            return  # all of them are just being started
        name, pid = self._chance.choice(roles)
        self._signal(pid, signal.SIGKILL, f"kill of a {name.split('-')[0]}")

    async def _kill_worker(self) -> None:
        pools = [pid for name, pid in sorted(self._roles().items()) if name.startswith("pool")]
        workers = [child for pool in pools for child in children_of(pool)]
        if workers:
            self._signal(self._chance.choice(workers), signal.SIGKILL, "kill of a worker")

    async def _kill_writer(self) -> None:
        pid = writer_of(self._chance.choice(self._logs))
        if pid is not None:
            self._signal(pid, signal.SIGKILL, "kill of a writer")

    async def _stop(self) -> None:
        pids = [*self._roles().values(), *filter(None, map(writer_of, self._logs))]
        if not pids:
            return
        pid = self._chance.choice(pids)
        self._signal(pid, signal.SIGSTOP, "stop")
        try:
            await trio.sleep(self._chance.random())
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _talk_garbage(self) -> None:
        with suppress(OSError, EventLogError):
            pipe = connect(self._chance.choice(self._logs))
            if pipe is None:
                return
            with pipe:
                pipe.setblocking(False)
                pipe.send(self._garbage())
                self.counts["garbage"] += 1

    def _garbage(self) -> bytes:
        """An introduction, mostly right, and then anything: often what fuzzing has found."""
        told = bytearray(frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid())))
        told += self._chance.choice([*self._found, bytes(told), b""])
        if self._chance.random() < 0.5:
            told[self._chance.randrange(len(told))] = self._chance.randrange(256)
        return bytes(told) + self._chance.randbytes(self._chance.randrange(2000))

    async def _never_read(self) -> None:
        """A client that asks, and never reads an answer."""
        with suppress(OSError, EventLogError):
            pipe = connect(self._chance.choice(self._logs))
            if pipe is None:
                return
            pipe.setblocking(False)
            self._sockets.append(pipe)
            pipe.send(frame(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid())))
            pipe.send(frame(Park(1, 1)) * 2000)
            self.counts["client that never reads"] += 1
        if len(self._sockets) > KEPT_SOCKETS_MAX:
            self._sockets.pop(0).close()

    async def _delete(self) -> None:
        """Delete a log under those who follow it, and make it anew."""
        await trio.to_thread.run_sync(self._remade.delete)
        await trio.sleep(self._remade.absent_s())
        await trio.to_thread.run_sync(self._remade.make)
        self.counts["deleted log"] += 1

    async def _fill(self) -> None:
        """Take all the room of the small file system for a while."""
        assert self._room is not None
        filler = self._room / "filler"
        try:
            with suppress(OSError), filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self._room).free)
                self.counts["full file system"] += 1
            await trio.sleep(self._chance.random())
        finally:
            filler.unlink(missing_ok=True)
