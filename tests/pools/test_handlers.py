"""What may be a handler, what it is given, and what is refused before anything is started."""

from __future__ import annotations

import functools
import importlib.util
import operator
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventlog import EventEnvelope, EventLogError, blocking
from tests.pools import handlers
from tests.pools.parts import drained, marked_processes, marked_workers, parent
from tests.pools.records import Record
from workers import InvalidHandler, PoolFailed
from workers.blocking import Pool
from workers.handlers import Code
from workers.handlers import packed as pack
from workers.handlers import unpacked as unpack


class Shop:
    """Handlers that are methods."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def sell(self, event: int) -> None:
        self.record.note("did", event)

    def sell_envelope(self, envelope: EventEnvelope) -> None:
        self.record.note("did", envelope.event, envelope.seq_no)

    async def sell_async(self, event: int) -> None:
        self.record.note("did", event)

    def __call__(self, event: int) -> None:
        self.record.note("did", event)


class AsyncShop(Shop):
    async def __call__(self, event: int) -> None:  # type: ignore[override]
        self.record.note("did", event)


def decorated(handler: Callable[[Record, int], None]) -> Callable[[Record, int], None]:
    @functools.wraps(handler)
    def inner(record: Record, event: int) -> None:
        handler(record, event)

    return inner


@decorated
def wrapped(record: Record, event: int) -> None:
    record.note("did", event)


def keyword(event: int, *, record: Record) -> None:
    record.note("did", event)


def two_deep(record: Record) -> Callable[[int], None]:
    offset = 0

    def outer(event: int) -> None:
        def inner() -> None:
            record.note("did", event + offset)

        inner()

    return outer


MAKERS: dict[str, Callable[[Record], Any]] = {
    "function": lambda record: partial(handlers.note, record),
    "lambda": lambda record: lambda event: record.note("did", event),
    "closure": two_deep,
    "bound method": lambda record: Shop(record).sell,
    "async bound method": lambda record: Shop(record).sell_async,
    "callable object": Shop,
    "async callable object": AsyncShop,
    "method with envelope": lambda record: Shop(record).sell_envelope,
    "partial of a partial": lambda record: partial(partial(handlers.note), record),
    "partial with a keyword": lambda record: partial(keyword, record=record),
    "decorated": lambda record: partial(wrapped, record),
    "async partial": lambda record: partial(handlers.note_async, record),
}


@pytest.mark.parametrize("name", MAKERS)
def test_whatever_can_be_called_is_a_handler(
    log: blocking.EventLog, record: Record, name: str
) -> None:
    log.append_many([1, 2, 3])
    with Pool(log, group="g", handler=MAKERS[name](record), processes=1) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
        assert pool.stats().handled == 3
    assert sorted(record.numbers()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("handler", "results"),
    [
        ("tests.pools.handlers:itself", [[2], [3]]),
        (len, [1, 1]),
        (operator.itemgetter(0), [2, 3]),
        (list, [[2], [3]]),
    ],
    ids=["name", "builtin", "object of the library", "class"],
)
def test_names_builtins_and_classes_are_handlers(
    log: blocking.EventLog, tmp_path: Path, handler: Any, results: list[Any]
) -> None:
    log.append_many([[2], [3]])
    output = tmp_path / "output"
    options: dict[str, Any] = {"processes": 1, "output": output}
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        assert list(pool.dead_letters()) == []
    with blocking.open(output) as stored:
        assert [envelope.event for envelope in stored.read(1)] == results


def test_a_parameter_named_or_annotated_as_the_envelope_gets_it(
    log: blocking.EventLog, record: Record
) -> None:
    log.append(5, key="k", headers={"h": "v"})
    for group, handler in (("a", handlers.note_envelope), ("b", handlers.note_annotated)):
        with Pool(log, group=group, handler=partial(handler, record), processes=1) as pool:
            drained(pool)
            assert list(pool.dead_letters()) == []
    assert record.lines() == [["did", "5", "k"], ["did", "5", "1", "k", "v"]]


@pytest.mark.real_starts
def test_a_script_needs_no_guard_and_its_functions_travel(
    log: blocking.EventLog, log_path: str, record: Record
) -> None:
    log.append_many([1, 2, 3])
    with parent("script", log_path, record.path) as script:
        assert script.line() == ["handled", "3"]
        assert script.end() == 0
    assert record.numbers() == [3, 6, 18, 3, 6, 18]


@pytest.mark.real_starts
def test_functions_of_a_script_see_the_globals_that_others_set(
    log: blocking.EventLog, log_path: str, record: Record
) -> None:
    log.append_many([1, 2])
    with parent("initialized", log_path, record.path) as script:
        assert script.line() == ["done", "None"]
        assert script.end() == 0
    assert record.numbers() == [10, 20] * 3


def test_functions_keep_the_globals_of_their_own_module() -> None:
    """Also where a decorator of another module says that its function is of this one."""
    namespace: dict[str, Any] = {"__name__": __name__, "wraps": functools.wraps, "count": 100}
    exec(  # a module that cannot be imported
        "def decorator(f):\n"
        "    @wraps(f)\n"
        "    def inner(event):\n"
        "        return count + f(event)\n"
        "    return inner\n",
        namespace,
    )
    own: dict[str, Any] = {"__name__": __name__, "count": 1}
    exec(  # a module that cannot be imported
        "def handler(event):\n    return count * event\n"
        "def initializer():\n    global count\n    count = 2\n",
        own,
    )
    handler = namespace["decorator"](own["handler"])
    unpacked, initializer, *_ = unpack(pack(Code(handler, own["initializer"])))
    assert initializer is not None
    assert unpacked(3) == 103
    initializer()
    assert unpacked(3) == 106
    assert (namespace["count"], own["count"]) == (100, 1)


PLUGIN = """
import enum

class State(enum.Enum):
    NEW = 1

def handle(record, event):
    record.note("did", State(event).value)
    raise ValueError("after that")
"""


def test_what_stands_in_a_module_that_only_this_process_can_import_travels_by_value(
    log: blocking.EventLog, record: Record, tmp_path: Path
) -> None:
    """It went by name, and each worker failed: `No module named 'plugin_of_a_test'`."""
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    spec = importlib.util.spec_from_file_location("plugin_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        log.append(1)
        handler = partial(module.handle, record)
        with Pool(log, group="g", handler=handler, processes=1, max_deliveries=1) as pool:
            drained(pool)
            [letter] = pool.dead_letters()
    finally:
        del sys.modules[spec.name]
    assert record.numbers() == [1]
    assert f'File "{path}", line 9, in handle' in (letter.traceback or ""), "as in the script"
    assert 'raise ValueError("after that")' in (letter.traceback or "")


def test_async_handlers_return_results_and_fail_like_others(
    log: blocking.EventLog, record: Record, tmp_path: Path
) -> None:
    log.append_many([1, "fail", 2])
    handler = partial(handlers.note_async, record)
    options: dict[str, Any] = {"processes": 1, "max_deliveries": 1, "concurrency": 2}
    options |= {"output": tmp_path / "output"}
    with Pool(log, group="g", handler=handler, **options) as pool:
        drained(pool)
        [letter] = pool.dead_letters()
    assert (letter.event, letter.error) == ("fail", "LookupError: async failure")
    assert "in note_async" in (letter.traceback or "")
    with blocking.open(tmp_path / "output") as output:
        results = [envelope.event for envelope in output.read(1)]
    assert sorted(result["of"] for result in results) == [1, 2]


def test_sync_handlers_share_a_worker_in_threads(log: blocking.EventLog, record: Record) -> None:
    log.append_many(range(6))
    handler = partial(handlers.meet, record, 6)
    with Pool(log, group="g", handler=handler, processes=1, concurrency=6) as pool:
        drained(pool)
        assert pool.stats().handled == 6
    assert {line[2] for line in record.lines() if line[0] == "began"} == {
        str(worker.pid) for worker in pool.stats().workers
    }


def test_the_initializer_is_called_once_in_each_worker(
    log: blocking.EventLog, record: Record
) -> None:
    log.append_many(range(20))
    options: dict[str, Any] = {"processes": 2, "initializer": partial(handlers.note_start, record)}
    with Pool(log, group="g", handler=partial(handlers.note, record), **options) as pool:
        drained(pool)
        pids = sorted(worker.pid for worker in pool.stats().workers)
    assert sorted(record.numbers("started")) == pids
    assert record.lines()[0][0] == "started", "before any event"


# --- what is refused -------------------------------------------------------------------------


def with_a_lock() -> Callable[[int], None]:
    lock = threading.Lock()

    def handle(event: int) -> None:
        with lock:
            raise AssertionError(event)

    return handle


def with_a_socket() -> Callable[[int], None]:
    connection = socket.socket()
    connection.close()
    return lambda event: connection.sendall(bytes(event))


def with_a_generator() -> Callable[[int], int]:
    numbers = (number for number in range(3))
    return lambda event: next(numbers) + event


@pytest.mark.parametrize("make", [with_a_generator, with_a_socket])
def test_what_cannot_travel_is_refused_before_a_process_is_started(
    log: blocking.EventLog, mark: str, make: Callable[[], Any]
) -> None:
    before = marked_processes(mark)
    with (
        pytest.raises(InvalidHandler, match="cannot be sent") as caught,
        Pool(log, group="g", handler=make(), processes=1),
    ):
        pytest.fail("the pool has started")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, EventLogError)
    assert make.__name__ in str(caught.value), "the handler is named"
    assert marked_processes(mark) == before
    with (
        pytest.raises(InvalidHandler, match="initializer"),
        Pool(log, group="g", handler=handlers.itself, initializer=make()),
    ):
        pytest.fail("the pool has started")
    assert marked_processes(mark) == before
    assert log.consumers() == []


@pytest.mark.parametrize("nonsense", [None, 7, "", "module", "module:", ":function", b"a:b", [len]])
def test_what_is_no_handler_is_refused(log: blocking.EventLog, mark: str, nonsense: Any) -> None:
    with pytest.raises(InvalidHandler), Pool(log, group="g", handler=nonsense, processes=1):
        pytest.fail("the pool has started")
    assert marked_workers(mark) == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("tests.pools.nowhere:f", "No module named 'tests.pools.nowhere'"),
        ("tests.pools.handlers:absent", "absent"),
        ("tests.pools.handlers:GATE_S", "cannot be called"),
        ("tests.pools.broken:handle", "this module is broken"),
    ],
)
def test_an_import_that_fails_in_the_worker_fails_the_pool(
    log: blocking.EventLog, mark: str, name: str, error: str
) -> None:
    log.append(1)
    with (
        pytest.raises(PoolFailed, match=error) as caught,
        Pool(log, group="g", handler=name, processes=2),
    ):
        pytest.fail("the pool has started")
    assert "Traceback" in (caught.value.worker_traceback or "")
    assert marked_workers(mark) == []


# --- what would fail with each event, or run nothing -----------------------------------------


def no_event() -> None: ...


def two_events(first: int, second: int) -> None: ...


def only_a_keyword(*, envelope: EventEnvelope) -> None: ...


def generator(event: int) -> Iterator[int]:
    yield event


async def async_generator(event: int) -> AsyncIterator[int]:
    yield event


async def initialize_async() -> None: ...


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (no_event, "handler no_event cannot be called with one event: too many positional"),
        (two_events, "handler two_events cannot be called with one event: missing .*'second'"),
        (only_a_keyword, "cannot be called with one event"),
        (generator, "handler generator is a generator, so a call runs nothing of it"),
        (async_generator, "is a generator"),
        (partial(generator), "is a generator"),
    ],
)
def test_a_handler_that_no_event_can_be_given_is_refused(handler: Any, message: str) -> None:
    """Each event of the log became a dead letter, after all of its deliveries."""
    with blocking.open("memory:") as log, pytest.raises(InvalidHandler, match=message):
        Pool(log, group="g", handler=handler, processes=0)


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (initialize_async, "initializer initialize_async is a coroutine function"),
        (len, "initializer len cannot be called without arguments"),
        (generator, "is a generator"),
    ],
)
def test_an_initializer_that_would_do_nothing_is_refused(initializer: Any, message: str) -> None:
    # `async def` was called and not awaited: nothing of it ran, and nobody was told.
    with blocking.open("memory:") as log, pytest.raises(InvalidHandler, match=message):
        Pool(log, group="g", handler=len, initializer=initializer, processes=0)


def test_a_name_of_a_generator_fails_the_pool() -> None:
    name = f"{__name__}:generator"
    with (
        blocking.open("memory:") as log,
        pytest.raises(PoolFailed, match="is a generator"),
        Pool(log, group="g", handler=name, processes=0),
    ):
        pytest.fail("the pool has started")


def test_a_decorator_may_give_its_function_more_than_the_event() -> None:
    def with_a_connection(function: Callable[[int, str], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def inner(*events: int) -> None:
            function(events[0], "connection")

        return inner

    seen: list[tuple[int, str]] = []
    handler = with_a_connection(lambda event, connection: seen.append((event, connection)))
    with blocking.open("memory:") as log:
        log.append(7)
        with Pool(log, group="g", handler=handler, processes=0) as pool:
            pool.drained()
    assert seen == [(7, "connection")]
