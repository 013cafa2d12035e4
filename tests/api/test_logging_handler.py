"""`eventlog.logging_handler.Handler`: lines of threads and processes as events of one log."""

from __future__ import annotations

import logging
import logging.config
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eventlog import EventLogError, NotSupported, Retention, blocking
from eventlog.logging_handler import Handler
from workers.blocking import Pool

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
LIMIT_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lines")


@pytest.fixture
def handler(path: str) -> Iterator[Handler]:
    made = Handler(path)
    yield made
    made.close()


@pytest.fixture
def logger(handler: Handler) -> logging.Logger:
    return logger_with(handler)


def logger_with(handler: logging.Handler) -> logging.Logger:
    """A logger that nothing else knows."""
    made = logging.Logger("shop.orders")  # noqa: LOG001
    made.addHandler(handler)
    return made


def lines(path: str) -> list[dict[str, Any]]:
    with blocking.open(path) as log:
        return [envelope.event for envelope in log.read(1)]


def messages(path: str) -> list[str]:
    return [line["message"] for line in lines(path)]


class Logs:
    """A value whose text logs another line: as a signal handler that comes in the middle of it."""

    def __init__(self, logger: logging.Logger, text: str) -> None:
        self._logger = logger
        self._text = text

    def __str__(self) -> str:
        self._logger.info(self._text)
        return "outer"


def test_a_line_is_an_event_with_the_loggers_name_as_its_key(
    logger: logging.Logger, path: str
) -> None:
    before = datetime.now(UTC)
    logger.warning("%d pens are left", 3, extra={"product": "pen", "sizes": [1, 2]})
    with blocking.open(path) as log:
        (envelope,) = log.read(key="shop.orders")
    assert envelope.headers == {"level": "WARNING"}
    assert before <= envelope.timestamp <= datetime.now(UTC)
    line = envelope.event.pop("line")
    assert "%d pens are left" in Path(__file__).read_text().splitlines()[line - 1]
    assert envelope.event == {
        "level": "WARNING",
        "logger": "shop.orders",
        "message": "3 pens are left",
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
        "file": __file__,
        "function": "test_a_line_is_an_event_with_the_loggers_name_as_its_key",
        "extra": {"product": "pen", "sizes": [1, 2]},
    }


def test_an_exception_and_a_stack_are_stored_as_text(logger: logging.Logger, path: str) -> None:
    try:
        raise KeyError("ink")
    except KeyError:
        logger.exception("not sold")
    logger.info("here", stack_info=True)
    logger.error("nothing was raised", exc_info=True)  # noqa: LOG014
    raised, here, nothing = lines(path)
    assert raised["exception"].startswith("Traceback (most recent call last):\n")
    assert raised["exception"].endswith("KeyError: 'ink'")
    assert here["stack"].startswith("Stack (most recent call last):\n")
    assert "exception" not in here
    assert "exception" not in nothing


def test_what_no_event_can_carry_is_stored_as_its_repr(logger: logging.Logger, path: str) -> None:
    logger.info("a %s", "file\udcff", extra={"cause": ValueError("no"), "large": 1 << 70})
    (line,) = lines(path)
    assert line["message"] == "a file\\udcff"
    assert line["extra"] == {"cause": "ValueError('no')", "large": repr(1 << 70)}


def test_levels_and_filters_choose_what_is_stored(handler: Handler, path: str) -> None:
    logger = logger_with(handler)
    handler.setLevel("WARNING")
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("one")
    logger.error("a secret")
    logger.error("two")
    assert messages(path) == ["two"]
    assert repr(handler) == f"<Handler {path!r} (WARNING)>"


def test_a_line_logged_while_its_own_thread_stores_another_one_is_stored_right_after(
    logger: logging.Logger, path: str
) -> None:
    logger.info("%s", Logs(logger, "inner"))
    assert messages(path) == ["outer", "inner"]


def test_lines_of_a_signal_handler_that_comes_at_any_moment_are_all_stored(
    handler: Handler, logger: logging.Logger, path: str
) -> None:
    logged: list[str] = []

    def log_alarm(*_: object) -> None:
        logged.append(text := f"alarm {len(logged)}")
        logger.info(text)

    before = signal.signal(signal.SIGALRM, log_alarm)
    number = 0
    try:
        while len(logged) < 50:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 5e-4))
            logger.info("main %d", number)
            number += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    handler.flush()
    stored = messages(path)
    assert [text for text in stored if text.startswith("main")] == [
        f"main {n}" for n in range(number)
    ]
    # The handler may itself be interrupted by the next signal, so they have no order.
    assert sorted(text for text in stored if text.startswith("alarm")) == sorted(logged)


def test_what_the_log_says_of_storing_a_line_is_not_stored_in_turn(
    handler: Handler, logger: logging.Logger, path: str
) -> None:
    of_log = logging.Logger("eventlog.writer")  # noqa: LOG001
    of_log.addHandler(handler)
    of_log.info("anything else is")
    logger.info("%s", Logs(of_log, "the log waits for room"))
    assert messages(path) == ["anything else is", "outer"]


def test_a_line_that_cannot_be_stored_never_fails_the_program(
    logger: logging.Logger,
    path: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger.info("%d", "no number")
    assert "--- Logging error ---" in capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("%d", "no number")
    assert not capsys.readouterr().err
    logger.info("and it goes on")
    assert messages(path) == ["and it goes on"]


def test_a_path_that_is_no_log_is_an_error_when_the_handler_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EventLogError, match="file"):
        Handler(tmp_path / "file")


def test_a_log_on_a_server_is_refused() -> None:
    # Its client logs in threads of its own while it opens, which waited for each other for ever.
    with pytest.raises(NotSupported, match="eventlog mirror --follow"):
        Handler("redis://localhost:1/0/lines")


def test_a_handler_is_configured_by_name_and_bounds_a_new_log(path: str) -> None:
    config = {
        "version": 1,
        "disable_existing_loggers": False,  # other tests look at what eventlog's own say
        "handlers": {
            "lines": {"class": "eventlog.logging_handler.Handler", "path": path, "max_bytes": 10**6}
        },
        "loggers": {"configured by name": {"handlers": ["lines"], "level": "INFO"}},
    }
    logging.config.dictConfig(config)
    logger = logging.getLogger("configured by name")
    logger.info("one")
    (handler,) = logger.handlers
    logger.removeHandler(handler)
    handler.close()
    with blocking.open(path) as log:
        assert log.configure().retention == Retention(max_bytes=10**6, keep_unacked=False)
    assert messages(path) == ["one"]


def test_a_line_after_the_handlers_end_opens_the_log_again(
    handler: Handler, logger: logging.Logger, path: str
) -> None:
    logger.info("one")
    handler.close()
    handler.close()
    logger.info("two")
    assert messages(path) == ["one", "two"]


def test_the_last_line_of_a_worker_that_dies_is_stored_if_it_has_the_handler(
    tmp_path: Path, path: str
) -> None:
    def log_to_lines() -> None:
        logging.getLogger().addHandler(Handler(path))

    def die(event: str) -> None:
        logging.getLogger("shop").error("dying of %s", event)
        os.kill(os.getpid(), signal.SIGKILL)

    with blocking.open(path) as lines, blocking.open(tmp_path / "orders") as orders:
        orders.append("pens")
        options: Any = {"initializer": log_to_lines, "processes": 1, "max_deliveries": 1}
        with Pool(orders, group="g", handler=die, **options) as pool:
            pool.drained()
        assert [line.event["message"] for line in lines.read(key="shop")] == ["dying of pens"]


PROGRAM = """
import logging, os, sys, threading
from eventlog.logging_handler import Handler

path, notes, end = sys.argv[1:]
logger = logging.getLogger("shop")
logger.setLevel("INFO")
logger.addHandler(Handler(path))
logger.info("parent before")

def work(name):
    number = 0
    while not os.path.exists(end):
        logger.info("%s %d", name, number)
        os.write(noted, f"{name} {number}\\n".encode())  # emit has returned
        number += 1

noted = os.open(notes, os.O_WRONLY | os.O_APPEND)
children = []
for number in range(3):
    child = os.fork()
    if not child:
        children.clear()
        threads = [threading.Thread(target=work, args=(f"{number}-{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logging.shutdown()
        os._exit(0)
    children.append(child)
print(*children, flush=True)
logger.info("parent after")
for child in children:
    os.waitpid(child, 0)
"""


def test_no_line_that_emit_returned_for_is_lost_or_doubled_whoever_is_killed(
    path: str, tmp_path: Path
) -> None:
    """Children of a fork log in two threads each; the writer and one child are killed."""
    notes, end = tmp_path / "notes", tmp_path / "end"
    notes.touch()
    words = [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), path, notes, end]
    with blocking.open(path) as log, log.follow() as stream:
        with subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            children = [int(word) for word in program.stdout.readline().split()]

            def wait_for_lines_of_all() -> None:
                waited = {f"{child}-{thread}" for child in range(3) for thread in range(2)}
                for envelope in stream:
                    waited.discard(envelope.event["message"].split()[0])
                    if not waited:
                        return

            wait_for_lines_of_all()
            writer = log.status().writer_pid
            assert writer is not None
            os.kill(writer, signal.SIGKILL)
            wait_for_lines_of_all()
            os.kill(children[0], signal.SIGKILL)
            next(stream)
            end.touch()
            _, errors = program.communicate(timeout=LIMIT_S)
        assert errors == ""
        stored = [envelope.event["message"] for envelope in log.read(1)]
    returned = notes.read_text().splitlines()
    assert len(stored) == len(set(stored)), "no line is there twice"
    assert set(returned) <= set(stored)
    # The two threads that were killed may each have stored one line that they did not note.
    assert set(stored) - set(returned) - {"parent before", "parent after"} <= {
        line for line in stored if line.startswith("0-")
    }
    assert len(stored) <= len(returned) + 4
    for name in {line.split()[0] for line in returned}:
        numbers = [int(line.split()[1]) for line in stored if line.startswith(f"{name} ")]
        assert numbers == list(range(len(numbers))), "the lines of a thread are in order"
