"""Processes that run a pool, for tests that kill them; the first word says which.

Handlers that are made here travel by value: this module is `__main__`, and has no guard that keeps
workers from running it again, as the scripts of users.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio

import eventlog
from eventlog import blocking
from tests.pools import handlers
from tests.pools.records import Record
from workers import Pool
from workers.blocking import Pool as BlockingPool

LOCK = threading.Lock()
"""Cannot be sent anywhere, and no handler uses it."""
FACTOR = 3


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def announce(pool: Any) -> None:
    """Say that the pool is ready once `run_forever`, called next, has taken over the signals."""

    def wait() -> None:
        number, untouched = signal.SIGTERM, signal.getsignal(signal.SIGTERM)
        other, default = signal.SIGINT, signal.getsignal(signal.SIGINT)
        while signal.getsignal(number) is untouched or signal.getsignal(other) is default:
            time.sleep(0.001)
        say("ready", *[worker.pid for worker in pool.stats().workers])

    threading.Thread(target=wait, daemon=True).start()


def factorial(number: int) -> int:
    """A function that needs itself, another one and a global of this module."""
    return FACTOR if number == 0 else times(number, factorial(number - 1))


def times(left: int, right: int) -> int:
    return left * right


class Adder:
    """A class of the script."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def add(self, event: int) -> None:
        self.record.note("did", factorial(event))


def script(path: str, record: str) -> None:
    """A script that handles everything and ends."""
    with blocking.open(path) as log:
        adder = Adder(Record(record))
        with BlockingPool(log, group="script", handler=adder.add, processes=1) as pool:
            pool.drained()
        handler = lambda event: Record(record).note("did", factorial(event))  # noqa: E731
        with BlockingPool(log, group="lambda", handler=handler, processes=1) as pool:
            pool.drained()
            say("handled", pool.stats().handled)


MODEL: int | None = None
"""What a global of a script usually is: loaded once in each worker."""


def load() -> None:
    global MODEL  # noqa: PLW0603 - the usual initializer
    MODEL = 10


def loaded() -> int:
    if MODEL is None:
        load()
    assert MODEL is not None
    return MODEL


def use_loaded(record: Record, event: int) -> None:
    record.note("did", event * (MODEL or 0))


def load_and_use(record: Record, event: int) -> None:
    loaded()
    record.note("did", event * (MODEL or 0))


def initialized(path: str, record: str) -> None:
    """A script whose handlers use a global that another of its functions sets in the worker."""
    own, by_name = partial(use_loaded, Record(record)), "tests.pools.handlers:limit_memory"
    lazy = partial(load_and_use, Record(record))
    with blocking.open(path) as log:
        for group, options in {
            "own": {"handler": own, "initializer": load},
            "lazy": {"handler": lazy},
            "named": {"handler": lazy, "initializer": by_name},
        }.items():
            with BlockingPool(log, group=group, processes=1, **options) as pool:  # type: ignore[arg-type]
                pool.drained()
    say("done", MODEL)


def serve(path: str, record: str, processes: str, ordering: str = "", output: str = "") -> None:
    """A pool that goes on until it is told to stop."""
    options: dict[str, Any] = {"processes": int(processes), "max_deliveries": 100}
    options |= {"ordering": ordering or None, "output": output or None}
    handler = partial(handlers.work if not output else handlers.result_of, Record(record))
    with (
        blocking.open(path) as log,
        BlockingPool(log, group="g", handler=handler, **options) as pool,
    ):
        announce(pool)
        pool.run_forever()


def gated(
    path: str,
    record: str,
    gate: str,
    stop_s: str,
    loop: str = "blocking",
    deliveries: str = "5",
) -> None:
    """A pool whose handlers wait for a gate, on an event loop or without one."""
    options: dict[str, Any] = {"group": "g", "processes": 2, "stop_s": float(stop_s)}
    options |= {"handler": partial(handlers.pass_gate, Record(record), gate)}
    options |= {"max_deliveries": int(deliveries)}
    if loop == "blocking":
        with blocking.open(path) as log, BlockingPool(log, **options) as pool:
            announce(pool)
            pool.run_forever()
            say("stopping")
    else:
        anyio.run(_gated, path, options, backend=loop)
    say("stopped")


async def _gated(path: str, options: dict[str, Any]) -> None:
    async with eventlog.open(path) as log, Pool(log, **options) as pool:
        announce(pool)
        await pool.run_forever()
        say("stopping")


def drain(path: str, record: str, gate: str, stage: str) -> None:
    """A script that does not care about signals; its handlers or initializers wait for a gate."""
    waiting = partial(handlers.pass_gate, Record(record), gate)
    options: dict[str, Any] = {"processes": 2, "stop_s": 90.0, "handler": waiting}
    if stage == "start":
        options["initializer"] = partial(waiting, 0)
    try:
        with blocking.open(path) as log, BlockingPool(log, group="g", **options) as pool:
            announce_leaving()
            say("entered")
            pool.drained()
    except KeyboardInterrupt:
        say("interrupted")


def announce_leaving() -> None:
    """Say when the pool is left, and has taken Ctrl-C over."""

    def wait() -> None:
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            time.sleep(0.001)
        say("leaving")

    threading.Thread(target=wait, daemon=True).start()


ROLES: dict[str, Callable[..., None]] = {
    "script": script,
    "initialized": initialized,
    "drain": drain,
    "serve": serve,
    "gated": gated,
}
ROLES[sys.argv[1]](*sys.argv[2:])
