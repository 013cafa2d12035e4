"""Each recipe does what `docs/recipes.md` promises of it, also where it is killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import runpy
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from eventlog import blocking
from tests import servers
from workers.blocking import Pool

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs" / "recipes"
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.py"))
PAGE: Final = (ROOT / "docs" / "recipes.md").read_text()
LINES_MAX: Final = 40
WAIT_S: Final = 40.0
"""Against a hang: longer than anything here takes on a small, busy machine."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(FOLDER))))


def recipe(name: str) -> SimpleNamespace:
    """What the recipe defines, in this process."""
    return SimpleNamespace(**runpy.run_path(str(FOLDER / f"{name}.py"), run_name=name))


class Program:
    """A recipe that runs as a program of its own."""

    def __init__(self, name: str, *arguments: str) -> None:
        said, theirs = os.pipe()
        words = [str(FOLDER / f"{name}.py"), *arguments]
        with open("errors", "w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors.fileno(),
                pass_fds=[theirs],
            )
        self.pid: int = self._process.pid
        os.close(theirs)
        self._said = open(said)  # noqa: SIM115 - `running` closes it

    def line(self) -> str:
        """The next line that it prints."""
        line = self._said.readline()
        assert line, f"the program ended: {self.errors}"
        return line.rstrip("\n")

    def end(self) -> list[str]:
        """Wait until it has ended by itself, in order; what it has printed."""
        printed = self._said.read().splitlines()
        assert (self._wait(), self.errors) == (0, "")
        return printed

    @property
    def errors(self) -> str:
        return Path("errors").read_text()

    def kill(self) -> None:
        """End it as a crash does; one that has ended is gone already."""
        self._said.close()
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        """Wait for its end; the exit code."""
        return self._process.wait()


_START: Final = """
import os, runpy, sys
os.dup2(int(sys.argv[1]), 1)
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    """The recipe as a program of its own, which is killed at the end of the block."""
    program = Program(name, *arguments)
    try:
        yield program
    finally:
        program.kill()


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what nobody announces; what the condition gives."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
    return found


def test_every_recipe_is_short_on_the_page_and_tested() -> None:
    tests = Path(__file__).read_text()
    for name in NAMES:
        lines = len((FOLDER / f"{name}.py").read_text().splitlines())
        assert lines <= LINES_MAX, f"{name} has {lines} lines"
        assert f"(recipes/{name}.py)" in PAGE, f"{name} is not on the page"
        assert re.search(rf'"{name}[":]', tests), f"{name} has no test"


SALES: Final = [{"product": ("pen", "ink")[n % 2], "pieces": n} for n in range(2000)]
TOTALS: Final = {"pen": 999_000, "ink": 1_000_000}


def count_and_kill(name: str, position: Callable[[], int]) -> None:
    """Append all sales in parts; the program is killed in each, after its first transaction."""
    with blocking.open("sales") as log:
        for part in range(0, len(SALES), 1000):
            for start in range(part, part + 1000, 250):
                log.append_many(SALES[start : start + 250])  # a batch, and so a transaction
            with running(name):
                until(lambda least=part: position() > least)  # type: ignore[misc]
        with running(name):
            until(lambda: position() == len(SALES))
        (consumer,) = log.consumers()
        assert consumer.last_acked is not None, "retention and `eventlog consumers` know of it"
        assert consumer.last_acked <= len(SALES)


def test_totals_in_sqlite_count_each_event_once_though_the_program_is_killed() -> None:
    def position() -> int:
        try:
            with closing(sqlite3.connect("file:totals.db?mode=ro", uri=True)) as database:
                return int(database.execute("select seq_no from position").fetchone()[0])
        except sqlite3.OperationalError:  # it is not made yet
            return 0

    count_and_kill("totals_sqlite", position)
    with closing(sqlite3.connect("totals.db")) as database:
        assert dict(database.execute("select * from totals")) == TOTALS


def test_a_second_program_that_counts_in_the_same_database_changes_nothing() -> None:
    program = recipe("totals_sqlite")
    with blocking.open("memory:") as log, closing(sqlite3.connect("totals.db")) as database:
        log.append_many(SALES[:10])
        events = list(log.read(1))
        database.executescript(program.TABLES)
        program.count(database, events)
        with pytest.raises(RuntimeError, match="another copy"):
            program.count(database, events)
        assert dict(database.execute("select * from totals")) == {"pen": 20, "ink": 25}


def postgresql() -> Path | None:
    """Where the programs of PostgreSQL are."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


@contextmanager
def postgresql_server(programs: Path) -> Iterator[str]:
    """A server of its own, and how to connect; it refuses to run as root, so somebody else does."""
    user = "nobody" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="eventlog-postgresql-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        words = [str(programs / "initdb"), "-D", data, "-U", "shop", "--no-sync", "--auth=trust"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, user=user, cwd=folder)
        with subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="],
            stderr=subprocess.DEVNULL,
            user=user,
            cwd=folder,
        ) as server:
            try:
                until(lambda: Path(folder, ".s.PGSQL.5432").exists())
                yield f"host={folder} user=shop dbname=postgres"
            finally:
                server.send_signal(signal.SIGINT)  # a fast shutdown


@pytest.mark.slow
def test_totals_in_postgresql_count_each_event_once_though_the_program_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    psycopg = pytest.importorskip("psycopg")
    if (programs := postgresql()) is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgresql_server(programs) as address:
        monkeypatch.setenv("DATABASE", address)

        def selected(query: str) -> list[Any]:
            with closing(psycopg.connect(address)) as database:
                try:
                    return list(database.execute(query))
                except psycopg.errors.UndefinedTable:  # it is not made yet
                    return []

        def position() -> int:
            return sum(row[0] for row in selected("select seq_no from position"))

        until(lambda: answers(psycopg, address))
        count_and_kill("totals_postgresql", position)
        assert dict(selected("select * from totals")) == TOTALS


def answers(psycopg: Any, address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:  # it starts
        return False
    return True


def test_a_consumer_from_now_on_sees_what_came_while_it_was_down() -> None:
    with blocking.open("orders") as log:
        log.append("before its first start")
        with running("from_now_on") as program:
            until(log.consumers)
            log.append("while it runs")
            assert program.line() == "2 while it runs"
            until(lambda: log.consumers()[0].last_acked == 2)
        log.append("while it is down")
        with running("from_now_on") as program:
            assert program.line() == "3 while it is down"


def test_a_ring_holds_the_producer_up_until_the_reader_makes_room(tmp_path: Path) -> None:
    ring = recipe("ring_buffer")
    place, events = str(tmp_path / "ring"), 20_000
    producer = threading.Thread(target=ring.produce, args=(place, events))
    producer.start()
    with ring.open_ring(place) as log:
        until(lambda: (log.last_seq_no() or 0) > 6_000)
        held = until_still(log.last_seq_no)
        assert held < 8_300, "8 MiB hold no more events of 1,000 bytes"
        assert producer.is_alive()
        ring.consume(place, events)
        producer.join(WAIT_S)
        assert log.last_seq_no() == events
        assert log.status().bytes <= 8 * 2**20


def until_still(value: Callable[[], Any]) -> Any:
    """The value, once it has been the same for a tenth of a second."""
    last, since = value(), time.monotonic()
    while time.monotonic() < since + 0.1:
        if (now := value()) != last:
            last, since = now, time.monotonic()
        time.sleep(0.005)
    return last


def decide_and_die(decide: Callable[[Any], None]) -> Callable[[Any], None]:
    """A handler whose worker is killed once, after a decision and before it can say so."""

    def handle(envelope: Any) -> None:
        decide(envelope)
        if envelope.seq_no == 2 and envelope.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return handle


def test_commands_are_decided_once_though_a_worker_is_killed_after_a_decision(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = recipe("commands_once")
    handler = decide_and_die(program.decide)
    with blocking.open("commands") as log:
        log.append_many([{"amount": 50}, {"amount": -30}, {"amount": -30}], keys=["account-7"] * 3)
        with Pool(log, group="decide", ordering="key", processes=1, handler=handler) as pool:
            pool.drained()
    program.main()  # 100, and twice -70
    program.decisions().close()
    decided = [literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["command"] for one in decided] == [1, 2, 3, 4, 5, 6]
    assert [one["accepted"] for one in decided] == [True, True, False, True, True, False]
    assert decided[-1]["balance"] == 50 - 30 + 100 - 70


def test_arrays_come_back_from_a_pool_with_their_shape(capsys: pytest.CaptureFixture[str]) -> None:
    recipe("arrays_through_a_pool").main()
    printed = capsys.readouterr().out.splitlines()
    assert sorted(int(line.split()[0]) for line in printed) == list(range(1, 51))
    assert {line.split(maxsplit=1)[1] for line in printed} == {"(120, 160) 1.0"}


def test_tasks_run_elsewhere_and_have_a_result() -> None:
    program = recipe("tasks")
    numbers = [program.add.delay(n, b=1) for n in range(3)]
    with running("tasks"):
        assert [program.result(number) for number in numbers] == [1, 2, 3]


def test_the_tests_of_handlers_pass() -> None:
    program = recipe("testing_handlers")
    tests = [test for name, test in vars(program).items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def test_training_data_are_shared_out_and_resume_in_the_same_order() -> None:
    with blocking.open("samples") as log:
        log.append_many(range(1000))
        log.append("after the epoch began")
    program = recipe("training_loader")

    def samples(**options: Any) -> Any:
        return program.Samples("samples", stop=1001, seed=7, **options)

    parts = [list(samples(worker=n, workers=3)) for n in range(3)]
    assert sorted(chain.from_iterable(parts)) == list(range(1000))
    assert parts[0] != sorted(parts[0])
    one = samples()
    first, second = list(one), list(one)
    assert sorted(first) == sorted(second)
    assert first != second, "each epoch has an order of its own"
    interrupted = samples(epoch=1)
    before = [value for value, _ in zip(interrupted, range(700), strict=False)]
    after = list(samples(epoch=interrupted.epoch, done=interrupted.done))
    assert [*before, *after][:700] == second[:700]
    assert after == second[interrupted.done :]


def test_a_request_gets_the_reply_to_itself() -> None:
    with running("request_reply", "serve"), blocking.open("requests") as requests:
        until(lambda: any(group.members for group in requests.groups()))  # the workers are there
        with running("request_reply") as client:
            assert client.end() == ["{'sum': 6}"]


def test_a_service_answers_each_line_with_its_number_in_order() -> None:
    with running("answering_numbers") as program:
        place = ("127.0.0.1", int(program.line()))
        with socket.create_connection(place, WAIT_S) as client, client.makefile("rb") as answers:
            client.sendall(b"first\nsecond\n")  # before the first answer
            assert [answers.readline(), answers.readline()] == [b"1\n", b"2\n"]
            client.sendall(b"third\n")
            client.shutdown(socket.SHUT_WR)
            assert answers.read() == b"3\n"
    with blocking.open("lines") as log:
        assert [envelope.event["line"] for envelope in log.read(1)] == ["first", "second", "third"]


def test_a_service_that_is_told_to_end_finishes_what_it_has_begun() -> None:
    with running("graceful_shutdown") as program:
        for _ in range(3):
            program.line()
        os.kill(program.pid, signal.SIGTERM)
        printed = program.end()
    with blocking.open("readings") as log:
        (consumer,) = log.consumers()
        assert consumer.last_acked == 3 + len(printed), "what is done is acknowledged"
        readings = [envelope.event["reading"] for envelope in log.read(1)]
    assert readings == list(range(len(readings)))


def test_log_lines_of_a_program_that_forks_are_in_one_log() -> None:
    with running("logging_handler") as program:
        printed = program.end()
    assert {line.split()[3] for line in printed} == {"shop.child", "shop.parent"}
    with blocking.open("lines") as log:
        assert len({line.event["pid"] for line in log.read(1)}) == 2


def test_lines_of_structlog_are_events_with_their_values() -> None:
    pytest.importorskip("structlog")
    with running("structlog_sink") as program:
        (printed,) = program.end()
    with blocking.open("lines") as log:
        (line,) = log.read(key="shop")
    assert (line.event["event"], line.event["pieces"], line.headers) == (
        "sold",
        3,
        {"level": "info"},
    )
    assert line.event["to"].startswith("<object object at")
    assert "'product': 'pen'" in printed


@contextmanager
def served(port: int, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A web server of the recipes that answers on the port."""
    with subprocess.Popen([sys.executable, "-m", *words]) as process:
        try:
            until(lambda: process.poll() is not None or is_served(port))
            yield process
            process.terminate()
            process.wait(WAIT_S)
        finally:
            process.kill()


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((servers.HOST, port)) == 0


def asked(port: int, method: str, path: str, body: Any = None) -> Any:
    """What the server answers on a connection of its own."""
    with closing(http.client.HTTPConnection(servers.HOST, port, timeout=WAIT_S)) as connection:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())


def streamed(port: int, last_event_id: str, count: int) -> list[tuple[str, Any]]:
    """The first events of a stream that goes on where a browser was: their ids and data."""
    with closing(http.client.HTTPConnection(servers.HOST, port, timeout=WAIT_S)) as connection:
        connection.request("GET", "/orders", headers={"Last-Event-ID": last_event_id})
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        found: list[tuple[str, Any]] = []
        fields: dict[str, str] = {}
        while len(found) < count:
            name, _, value = answer.readline().decode().strip().partition(": ")
            if name:
                fields[name] = value
            else:  # an empty line ends an event
                found.append((fields["id"], json.loads(fields["data"])))
        return found


@pytest.mark.slow
def test_a_browser_goes_on_after_the_last_event_that_it_has() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = servers.free_port()
    words = ("fastapi_sse:app", "--port", str(port), "--log-level", "warning")
    with served(port, "uvicorn", *words, "--timeout-graceful-shutdown", "1"):
        assert asked(port, "POST", "/orders", {"product": "pen"}) == {"seq_no": 1}
        assert streamed(port, "0", 1) == [("1", {"product": "pen"})]
        asked(port, "POST", "/orders", {"product": "ink"})
        asked(port, "POST", "/orders", {"product": "cap"})
        assert streamed(port, "1", 2) == [
            ("2", {"product": "ink"}),
            ("3", {"product": "cap"}),
        ]


@pytest.mark.slow
def test_workers_that_gunicorn_forks_store_orders_and_lines_in_one_log() -> None:
    pytest.importorskip("django")
    pytest.importorskip("gunicorn")
    port = servers.free_port()
    words = ("--preload", "-w", "2", "-b", f"{servers.HOST}:{port}", "--log-level", "error")
    with served(port, "gunicorn", *words, "django_gunicorn:application"):
        numbers = [asked(port, "GET", f"/order/{n}")["order"] for n in range(10)]
        with blocking.open("orders") as log:
            stored = list(log.read(1))
            pid = stored[0].event["pid"]
            os.kill(pid, signal.SIGKILL)
            until(lambda: asked_or_none(port, "/order/last"))
            pids = {envelope.event["pid"] for envelope in log.read(1)}
    assert numbers == list(range(1, 11))
    assert len(pids) > 1


def asked_or_none(port: int, path: str) -> Any:
    try:
        return asked(port, "GET", path)
    except (OSError, http.client.HTTPException):  # of the worker that was killed
        return None
