"""An open handle of a log on a server: the driver, its calls, what sends, and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import anyio

from eventlog.api import forks
from eventlog.api.arguments import Bounds
from eventlog.api.loops import LoopOwner
from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import not_supported
from eventlog.config import (
    BATCH_BYTES_LIMIT,
    LEASE_S_DEFAULT,
    MAX_IN_FLIGHT_DEFAULT,
    RETRY_S_DEFAULT,
    AskedOptions,
)
from eventlog.remote.calls import Calls, unavailable
from eventlog.remote.driver import Driver, DriverOfStates, Opened, Position, State, Unreachable
from eventlog.remote.producing import Appends, Store
from eventlog.remote.record import Limits

OPEN_S: Final = 10.0
"""How long `open` looks for the server."""
CLOSE_S: Final = 2.0
"""How long the end of a handle may take to say goodbye."""


class RemoteHandle:
    """A driver that is open. It belongs to one event loop."""

    def __init__(self, driver: Driver, opened: Opened, asked: AskedOptions) -> None:
        self.path = driver.path
        self.driver = driver
        self.opened = opened
        self.options = opened.options
        self._asked = asked
        self.generation = forks.generation
        self.loop = LoopOwner()
        self.calls = Calls(driver.path, RETRY_S_DEFAULT if asked.retry_s is None else asked.retry_s)
        self.lease_s = LEASE_S_DEFAULT if asked.lease_s is None else asked.lease_s
        self.limits = Limits(
            self.options.max_event_bytes,
            opened.record_bytes_max,
            min(_batch_bytes(opened.options.retention.max_bytes), opened.atomic_bytes_max),
            opened.atomic_events_max,
        )
        self.store = Store(driver, self.calls, waits_for_room=self.options.on_full == "wait")
        self.appends = Appends(self.store, self.limits, MAX_IN_FLIGHT_DEFAULT)

    def asked_of(self, address: str) -> AskedOptions:
        """The options for another log: on the same server with this handle's credentials."""
        if _server_of(address) != _server_of(self.path):
            return AskedOptions()
        asked = self._asked
        return AskedOptions(user=asked.user, password=asked.password, token=asked.token)

    def check_place(self) -> None:
        """Pass in the process and the event loop in which it was opened.

        Raises:
            ForkedHandle, WrongEventLoop: it belongs to another one.
        """
        forks.check(self.generation, self.path)
        self.loop.check(self.path)

    async def close(self) -> None:
        """End all calls, and give the driver back."""
        self.calls.close()
        await close_driver(self.driver)

    async def state(self) -> State:
        """First, last and size."""
        state = await self.calls.repeated(self.driver.state)
        self.store.note_last(state.last)
        return state

    async def find_time(self, time_ns: int) -> int:
        """The first event stored at or after that time."""
        return await self.calls.repeated(lambda: self.driver.find_time(time_ns))

    async def position_of(self, consumer: str) -> Position:
        """Where a consumer is, and its state; at the beginning, if it is none yet."""
        found = await self.calls.repeated(self.driver.positions)
        return found.get(consumer, Position(0, 0))

    async def ack_state(self, consumer: str, seq_no: int, state: bytes) -> None:
        """Acknowledge with a state.

        Raises:
            NotSupported: the driver keeps none.
        """
        if not hasattr(self.driver, "ack_state"):
            engine = self.path.partition(":")[0]
            raise not_supported(engine, "state=", self.path, "keep the state in a file of yours")
        driver = cast("DriverOfStates", self.driver)
        await self.calls.repeated(lambda: driver.ack_state(consumer, seq_no, state))

    async def start_of(self, position: SeekPosition, consumer: str) -> tuple[int, bytes | None]:
        """The number of the next event for a subscription that starts there now, and its state."""
        if position.kind != "last_acknowledged":
            return await self.resolve(position), None
        known = await self.position_of(consumer)
        number = known.position + 1 if known.position else await self.resolve(position)
        return number, known.state

    async def resolve(self, position: SeekPosition) -> int:
        """The number of the next event for a stream that starts there now, without a position."""
        match position.kind:
            case "sequence" if position.value:
                return position.value
            case "timestamp":
                return await self.find_time(position.value)
        state = await self.state()
        return state.last + 1 if position.kind == "latest" else state.first

    async def numbers_of(self, bounds: Bounds) -> tuple[int, int]:
        """Where a range begins, and before which event it ends."""
        state = await self.state()
        found = {
            time_ns: await self.find_time(time_ns)
            for time_ns in (bounds.since_ns, bounds.until_ns)
            if time_ns is not None
        }
        start, stop = bounds.numbers(state.first, state.last, found.__getitem__)
        return start or state.first, stop


def _server_of(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _batch_bytes(kept_bytes: int | None) -> int:
    """What a batch may have: it is stored whole, so a small part of what the log may keep."""
    return BATCH_BYTES_LIMIT if kept_bytes is None else min(BATCH_BYTES_LIMIT, kept_bytes // 16)


async def open_handle(make: Callable[[], Driver], asked: AskedOptions) -> RemoteHandle:
    """An open handle.

    Raises:
        WriterUnavailable: nobody answers.
        EventLogError: what `Driver.open` says.
    """
    driver = make()
    try:
        handle = RemoteHandle(driver, await _open(driver, asked), asked)
        asked.check_against(handle.options, driver.path)
    except BaseException:
        await close_driver(driver)
        raise
    return handle


async def _open(driver: Driver, asked: AskedOptions) -> Opened:
    limit_s = OPEN_S if asked.retry_s is None else min(OPEN_S, asked.retry_s)
    calls = Calls(driver.path, limit_s)
    with anyio.move_on_after(OPEN_S):
        return await calls.repeated(driver.open)
    raise unavailable(driver.path, OPEN_S, Unreachable("no answer"))


async def close_driver(driver: Driver) -> None:
    """Give the driver back, whether the caller is cancelled or not."""
    with anyio.move_on_after(CLOSE_S, shield=True):
        await driver.aclose()
