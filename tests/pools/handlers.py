"""Handlers that leave a record, and the many ways in which they can go wrong.

Each is used as a partial over its record. Those that can be told to go wrong are told by the event.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from eventlog import EventEnvelope, blocking
from eventlog.local.client.results import ResultWriter
from tests.pools.records import Record
from workers import Results


class Order(msgspec.Struct):
    """What events may be converted to."""

    item: str
    amount: int


GATE_S: Final = 60.0
"""A gate that nobody opens is given up after this time, so that a failing test ends."""
MIB: Final = 1 << 20


def note(record: Record, event: Any) -> None:
    record.note("began", event, os.getpid())
    record.note("did", event, os.getpid())


def note_envelope(record: Record, envelope: EventEnvelope) -> None:
    record.note("did", envelope.event, envelope.key)


def note_annotated(record: Record, what: EventEnvelope) -> None:
    record.note("did", what.event, what.seq_no, what.key, (what.headers or {}).get("h"))


def noted(record: Record, word: str, event: Any) -> int:
    """How often handlers have noted this of the event."""
    return sum(line[:2] == [word, str(event)] for line in record.lines())


def spin(seconds: float) -> None:
    """Use that much CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def work(record: Record, envelope: EventEnvelope) -> None:
    record.note("began", envelope.event, envelope.key)
    spin(0.0005)
    record.note("did", envelope.event, envelope.key)


def sleep(record: Record, seconds: float, event: Any) -> None:
    time.sleep(seconds)
    record.note("did", event)


def sleep_pid(record: Record, seconds: float, event: Any) -> None:
    time.sleep(seconds)
    record.note("did", event, os.getpid())


def nothing(_: Any) -> None:
    pass


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GATE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody opened the gate")
        time.sleep(0.002)


def pass_gate(record: Record, gate: str, event: Any) -> None:
    """Go on only when the gate, a file, is there."""
    record.note("began", event, os.getpid())
    wait_for(Path(gate).exists)
    record.note("did", event, os.getpid())


def pass_gate_and_fail(record: Record, gate: str, event: Any) -> NoReturn:
    pass_gate(record, gate, event)
    raise ValueError(f"no {event}")


def gate_at(record: Record, gate: str, closed: int, envelope: EventEnvelope) -> None:
    """The gate, for one event; all others pass."""
    if envelope.event == closed:
        record.note("began", closed, envelope.key)
        wait_for(Path(gate).exists)
    record.note("did", envelope.event, envelope.key)


def fail_or_pass(record: Record, gate: str, event: int) -> None:
    """An exception for a negative number, the gate for all others."""
    if event < 0:
        raise ValueError(f"no {event}")
    pass_gate(record, gate, event)


def append_next(record: Record, path: str, gate: str, event: int) -> None:
    """Append an event for the group before this one is done, until the gate is open."""
    record.note("did", event)
    if not Path(gate).exists():
        with blocking.open(path) as log:
            log.append(event + 1)


def meet(record: Record, many: int, event: Any) -> None:
    """Return when that many events were begun: it takes as many at the same time."""
    record.note("began", event, os.getpid())
    wait_for(lambda: len(record.numbers("began")) >= many)
    record.note("did", event)


async def meet_async(record: Record, many: int, event: Any) -> None:
    import trio

    record.note("began", event, os.getpid())
    with trio.fail_after(GATE_S):
        while len(record.numbers("began")) < many:  # noqa: ASYNC110 - what a file holds
            await trio.sleep(0.002)
    record.note("did", event)


async def note_async(record: Record, envelope: EventEnvelope) -> dict[str, Any]:
    import trio

    await trio.lowlevel.checkpoint()
    if envelope.event == "fail":
        raise LookupError("async failure")
    record.note("did", envelope.event, envelope.key)
    return {"of": envelope.event}


def result_of(record: Record, event: Any) -> Any:
    record.note("began", event)
    return {"of": event}


def result_if_number(record: Record, event: Any) -> Any:
    """A result for a number; anything else is one of our own results, which we must not see."""
    if not isinstance(event, int):
        record.note("own", 1)
        return None
    return result_of(record, event)


def slow_result(record: Record, event: int) -> Any:
    spin(0.001)
    return result_of(record, event)


def late_result(record: Record, event: int) -> Any:
    """So late that what is done is settled at once."""
    time.sleep(0.1)
    return result_of(record, event)


def gated_result(record: Record, gate: str, closed: int, event: Any) -> Any:
    if event == closed:
        record.note("waits", event)
        wait_for(Path(gate).exists)
    return result_if_number(record, event)


def note_results(record: Record, event: Any) -> None:
    if isinstance(event, dict):
        record.note("result", event["of"])


def odd_result(record: Record, event: Any) -> Any:
    record.note("began", event)
    odd = {"object": object(), "large": b"x" * 20_000, "function": odd_result}
    return odd.get(event, event)


def itself(event: Any) -> Any:
    return event


def keyed_result(envelope: EventEnvelope) -> Any:
    return EventEnvelope(envelope.event * 10, key=f"r{envelope.key}", headers={"from": "handler"})


def fail(record: Record, event: Any) -> NoReturn:
    record.note("began", event, time.monotonic_ns())
    raise ValueError(f"no {event}")


def fail_if_negative(record: Record, envelope: EventEnvelope) -> None:
    record.note("began", envelope.event, time.monotonic_ns())
    if envelope.event < 0:
        raise ValueError(f"no {envelope.event}")
    record.note("did", envelope.event, envelope.key)


def fail_first(record: Record, failures: int, envelope: EventEnvelope) -> None:
    """Fail that often for each event, and then don't."""
    record.note("began", envelope.event, time.monotonic_ns())
    if noted(record, "began", envelope.event) <= failures:
        raise ValueError(f"not yet {envelope.event}")
    record.note("did", envelope.event, envelope.key)


def die_at(record: Record, number: int, event: int) -> None:
    record.note("began", event)
    if event == number:
        os.kill(os.getpid(), signal.SIGKILL)


def die_once(record: Record, every: int, envelope: EventEnvelope) -> None:
    """At one event in that many, kill the worker; but only the first time."""
    number = envelope.event
    record.note("began", number, envelope.key)
    if number % every == every - 1 and noted(record, "began", number) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    record.note("did", number, envelope.key)


async def _never_awaited() -> None:
    raise AssertionError("it has run")


def _never_iterated() -> Iterator[int]:
    yield 1


async def _never_iterated_async() -> AsyncIterator[int]:
    yield 1


NOT_RUN: Final[dict[str, Callable[[], object]]] = {
    "coroutine": _never_awaited,
    "generator": _never_iterated,
    "async_generator": _never_iterated_async,
}


def return_what_has_not_run(record: Record, event: Any) -> Any:
    if event in NOT_RUN:
        return NOT_RUN[event]()
    record.note("did", event)
    return None


# --- ways to go wrong ------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


def _raise(error: BaseException) -> NoReturn:
    raise error


def _raise_from() -> NoReturn:
    try:
        _raise(KeyError("the cause"))
    except KeyError as error:
        raise LookupError("the consequence") from error


def _recurse(depth: int = 0) -> int:
    return _recurse(depth + 1) + 1


def _hold_the_interpreter() -> None:
    """Stop every thread of the process: no Python of it can act on a time limit."""
    ctypes.PyDLL(None).sleep(60)


EXCEPTIONS: Final[dict[str, Callable[[], object]]] = {
    "plain": lambda: _raise(ValueError("boom")),
    "chained": _raise_from,
    "group": lambda: _raise(ExceptionGroup("both", [ValueError("one"), TypeError("two")])),
    "unprintable": lambda: _raise(Unprintable()),
    "surrogates": lambda: _raise(ValueError("odd \udc80 name")),
    "huge": lambda: _raise(ValueError("x" * 3 * MIB)),
    "recursion": _recurse,
    "exit": lambda: sys.exit("enough"),
    "exit zero": lambda: sys.exit(0),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "base": lambda: _raise(BaseException("base")),
    "generator exit": lambda: _raise(GeneratorExit()),
    "memory": lambda: _raise(MemoryError()),
    "stop iteration": lambda: _raise(StopIteration("stop")),
    "os error": lambda: open("/no/such/file"),  # noqa: SIM115 - it is not opened
}

DEATHS: Final[dict[str, Callable[[], object]]] = {
    "exit 7": lambda: os._exit(7),
    "exit 0": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "segfault": faulthandler._sigsegv,  # type: ignore[attr-defined]
    "null": lambda: ctypes.string_at(0),
}


def _hang_after_a_fork() -> None:
    """The child leaves the handler, which its parent does not."""
    if os.fork() == 0:
        sys.exit()
    os.wait()
    spin(60)


HANGS: Final[dict[str, Callable[[], object]]] = {
    "spin": lambda: spin(60),
    "hold": _hold_the_interpreter,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "fork": _hang_after_a_fork,
}

ALL: Final = EXCEPTIONS | DEATHS | HANGS


def go_wrong(record: Record, event: Any) -> None:
    """Do what the event names; a number is an event that is handled."""
    record.note("began", event if isinstance(event, int) else event.replace(" ", "-"))
    if not isinstance(event, int):
        ALL[event]()
    record.note("did", event)


def limit_memory() -> None:
    """Leave this process 256 MiB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 256 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def eat_memory(record: Record, event: int) -> None:
    record.note("began", event)
    eaten = []
    while event < 0:
        eaten.append(bytearray(16 * MIB))
    record.note("did", event)


def fork_and_die(record: Record, event: int) -> None:
    """Leave a child behind that holds copies of all pipes, and die; but only the first time."""
    record.note("began", event)
    if noted(record, "began", event) == 1:
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            while True:
                signal.pause()
        record.note("child", child)
        os.kill(os.getpid(), signal.SIGKILL)
    record.note("did", event)


def note_in_thread(record: Record, event: int) -> None:
    """Return before the thread that does the work has ended."""
    threading.Thread(target=note, args=(record, event)).start()


def leave_a_thread(record: Record, event: int) -> None:
    """Return, and leave a thread that never ends and keeps the interpreter from ending."""
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    record.note("did", event)


def log_in_a_signal_handler(record: Record, event: int) -> None:
    """While the main thread logs too, so that the one interrupts the other in the middle."""
    import logging

    mine = logging.getLogger("mine")
    signal.signal(signal.SIGALRM, lambda *_: mine.warning("interrupted"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for number in range(3_000):
        mine.warning("line %d of %d", number, event)
    signal.setitimer(signal.ITIMER_REAL, 0)
    record.note("did", event)


def log_and_die(event: int) -> None:
    import logging

    for number in range(100):
        logging.getLogger("mine").warning("line %d of %d", number, event)
    os._exit(1)


def close_descriptors(record: Record, writer_pid: int | None, event: int) -> None:
    """As code does that makes itself a daemon; but only the first time. Then the writer may end."""
    record.note("began", event)
    if noted(record, "began", event) == 1:
        os.closerange(3, 1000)
        if writer_pid is not None:
            os.kill(writer_pid, signal.SIGKILL)
    record.note("did", event)


# --- initializers ----------------------------------------------------------------------------


def initialize_badly() -> NoReturn:
    raise RuntimeError("no database here")


def exit_at_start() -> NoReturn:
    sys.exit("no licence")


def segfault_at_start() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]


def note_start(record: Record) -> None:
    record.note("started", os.getpid())


def note_birth(record: Record) -> None:
    record.note("born", os.getpid())


_handled: list[int] = []


def wait_for_a_birth_at_the_end(record: Record, at_most: int, event: int) -> None:
    """Note the event; the last one of a worker ends only when there is another worker."""
    _handled.append(event)
    if len(_handled) == at_most:
        wait_for(lambda: record.numbers("born")[-1] != os.getpid())
    record.note("did", event, os.getpid())


def start_only_twice(record: Record) -> None:
    """Two workers can start, and none after them."""
    record.note("started", os.getpid())
    if len(record.numbers("started")) > 2:
        raise RuntimeError("the database has gone away")


# --- children --------------------------------------------------------------------------------


def fork(record: Record, how: str, event: Any) -> None:
    """Fork, and end the child in one of the ways in which a handler ends; wait for it."""
    record.note("began", event, os.getpid())
    child = os.fork()
    if child == 0:
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise ValueError("in the child")
        return
    _, status = os.waitpid(child, 0)
    record.note("child", os.waitstatus_to_exitcode(status))
    record.note("did", event)


async def fork_async(record: Record, how: str, event: Any) -> None:
    fork(record, how, event)


def interrupt_a_program(record: Record, event: int) -> None:
    """Send SIGINT to a program that this handler has started."""
    with subprocess.Popen(["sleep", "60"]) as program:
        program.send_signal(signal.SIGINT)
        record.note("ended", program.wait(GATE_S))


LEAKED: Final[list[bytes]] = []


def leak(record: Record, event: int) -> None:
    """Keep 40 MiB more with each event."""
    LEAKED.append(b"x" * (40 * MIB))
    record.note("did", event, os.getpid())


def several_results(event: Any) -> Any:
    """As many results as the event says; a list of texts as it is."""
    if isinstance(event, list):
        return Results(event)
    return Results(EventEnvelope(n, key=f"own {n}") if n == 2 else n for n in range(event))


def die_once_behind_stored_results(mark: str) -> None:
    """An initializer: the first worker that has stored results is killed before it says so."""
    store = ResultWriter.store

    def store_and_die(writer: ResultWriter, *arguments: Any) -> Any:
        yield from store(writer, *arguments)
        if not os.path.exists(mark):
            with open(mark, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)

    ResultWriter.store = store_and_die  # type: ignore[method-assign,assignment]
