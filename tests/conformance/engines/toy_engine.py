"""An engine as somebody else would ship it: a driver, found by its entry point.

Its "servers" are logs of the memory engine, so what the suite tests here is the way from an address
to an engine, the shell around a driver, and the blocking log that is made over an asynchronous one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final
from weakref import WeakKeyDictionary

from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import wrong_last
from eventlog.config import AskedOptions
from eventlog.memory.handle import find_log
from eventlog.memory.model import MemoryLog
from eventlog.remote.driver import Opened, OutOfTurn, Position, Reader, State, Stored
from eventlog.remote.log import RemoteEventLog
from eventlog.remote.modelled import ModelledGroups, store, stored_in, wait_for

NAME: Final = "toy"
OPTIONS: Final = frozenset(
    {"durability", "retention", "on_full", "max_event_bytes", "retry_s", "lease_s"}
)
_answers: WeakKeyDictionary[MemoryLog, dict[int, list[int]]] = WeakKeyDictionary()
"""What each log has answered each producer."""


def open_log(address: str, asked: AskedOptions) -> RemoteEventLog:
    """A handle of the log that `toy://NAME` means."""
    return RemoteEventLog(address, asked, lambda: ToyDriver(address, asked))


class ToyDriver(ModelledGroups):
    """See `Driver`."""

    def __init__(self, address: str, asked: AskedOptions) -> None:
        self.path = address
        self._asked = asked

    async def open(self) -> Opened:
        self.log = find_log("toy://", self.path.removeprefix("toy://"), self._asked)
        self._answers = _answers.setdefault(self.log, defaultdict(list))
        size = 2 * self.log.options.max_event_bytes + 1024
        return Opened(
            log_id=self.log.log_id,
            options=self.log.options,
            record_bytes_max=size,
            atomic_events_max=1000,
            atomic_bytes_max=1 << 20,
        )

    async def aclose(self) -> None:
        """Nothing is to be given back."""

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        with self.log.groups.changing():
            answers = self._answers[producer_id]
            if producer_seq > len(answers) + 1:
                raise OutOfTurn
            if producer_seq == len(answers) + 1:
                if expect_last not in (None, self.log.last):
                    raise wrong_last(self.path, expect_last, self.log.last)
                answers.append(store(self.log, records))
            return answers[producer_seq - 1]

    async def state(self) -> State:
        return State(self.log.first_available, self.log.last, self.log.bytes)

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        return stored_in(self.log, seq_no, count)

    def reader(self, seq_no: int) -> Reader:
        return ToyReader(self.log, seq_no)

    async def synced(self) -> None:
        """Nothing is ever on a disk, and a test cannot tell."""

    async def find_time(self, time_ns: int) -> int:
        return self.log.find_time(time_ns)

    async def positions(self) -> Mapping[str, Position]:
        return {
            one.name: Position(one.last_acked or 0, int(one.last_seen.timestamp() * 1e9), one.state)
            for one in self.log.consumers()
        }

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """See `DriverOfStates`."""
        self.log.ack(consumer, position, state)

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        if is_ack:
            self.log.ack(consumer, position)
        else:
            self.log.seek(consumer, SeekPosition.sequence(position + 1))

    async def forget(self, consumer: str) -> None:
        self.log.forget(consumer)


class ToyReader:
    """See `Reader`."""

    def __init__(self, log: MemoryLog, seq_no: int) -> None:
        self._log = log
        self._seq_no = seq_no

    async def next(self) -> list[Stored]:
        found = await wait_for(self._log, lambda: stored_in(self._log, self._seq_no, 512))
        self._seq_no += len(found)
        return found

    async def aclose(self) -> None:
        """Nothing is to be given back."""
