"""scripts/bench itself: peers that are missing or fail, and one small run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from benchmark import runner
from benchmark.events import ORDERS, Payload
from benchmark.processes import RunFailed
from benchmark.results import FOREIGN_PERCENT, Figures, RatioGoal
from benchmark.settings import Settings
from benchmark.systems.bare_loop import BareLoop
from benchmark.systems.base import MakeSystem, System, first_missing, why_missing
from benchmark.systems.log import BlockingLog, TrioLog, blocking_log_batched, trio_log_batched
from benchmark.systems.msgpack_pipe import MsgpackPipe, pipe_batched
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.raw_pipe import RawPipe
from benchmark.workloads import WORKLOADS
from benchmark.workloads.base import Column, Contender, Workload
from benchmark.workloads.latency import quantile
from benchmark.workloads.transfer import throughput_of, transfer

SLOW = pytest.mark.slow
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module", autouse=True)
def resource_tracker_is_running() -> None:
    """One process for all, which multiprocessing starts when it first needs it and then keeps."""
    resource_tracker.ensure_running()


class Made(Workload):
    """Contenders that need nothing."""

    name = "made"
    title = "Made"
    columns = (Column("x", "x"),)
    goals = ()

    def __init__(self, contenders: Sequence[Contender]) -> None:
        self.contenders = contenders

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        yield self.contenders


def run(contenders: Sequence[Contender], repeat: int, directory: Path) -> dict[str, object]:
    settings = Settings(directory=str(directory), repeat=repeat)
    result = runner.run(Made(contenders), settings, lambda _text, _done, _total: None)
    return {one.name: one for one in result.series}


def test_rounds_go_there_and_back(tmp_path: Path) -> None:
    turns: list[str] = []

    def contender(name: str) -> Contender:
        def turn() -> Figures:
            turns.append(name)
            return {"x": 1.0}

        return Contender(name, turn)

    run([contender("a"), contender("b")], 3, tmp_path)
    assert turns == ["a", "b", "b", "a", "a", "b"]


def test_a_peer_that_fails_or_is_missing_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    def fail() -> Figures:
        raise RunFailed("it broke")

    def never() -> Figures:
        raise AssertionError("it is missing")

    contenders = [
        Contender("broken", fail),
        Contender("gone", never, "gone is not installed"),
        Contender("good", lambda: {"x": 2.0}),
    ]
    found = run(contenders, 2, tmp_path)
    assert found["broken"].failed == "it broke"  # type: ignore[attr-defined]
    assert found["gone"].missing == "gone is not installed"  # type: ignore[attr-defined]
    assert found["good"].samples == [{"x": 2.0}, {"x": 2.0}]  # type: ignore[attr-defined]


def test_a_disturbed_run_is_tried_again_but_not_without_end(tmp_path: Path) -> None:
    foreign = iter([50.0, 5.0, 60.0, 70.0, 0.0])
    runs: list[float] = []

    def turn() -> Figures:
        runs.append(next(foreign))
        return {"x": 1.0, FOREIGN_PERCENT: runs[-1]}

    found = run([Contender("one", turn)], 3, tmp_path)
    assert runs == [50.0, 5.0, 60.0, 70.0]
    taken = [sample[FOREIGN_PERCENT] for sample in found["one"].samples]  # type: ignore[attr-defined]
    assert taken == [5.0, 60.0, 70.0]


def test_a_system_whose_module_is_not_installed_says_so() -> None:
    class Gone(BareLoop):
        needs = "no_such_module"

    assert why_missing(Gone) == "no_such_module is not installed"
    assert first_missing("sys", "no_such_module") == "no_such_module is not installed"
    assert first_missing("sys") is None


@pytest.mark.parametrize("size", [None, 128, 64 * 1024, 1024 * 1024])
def test_events_are_of_one_size_and_differ(size: int | None) -> None:
    payload = Payload(size)
    first, second = payload.events(2)
    assert first != second
    assert len(payload.encoder()(first)) == (size or 150)
    assert payload.decoder()(payload.encoder()(first)) == first
    assert [len(chunk) for chunk in payload.chunks(5, 2)] == [2, 2, 1]
    assert payload.event_at(1) == second


def test_a_quantile_is_one_of_the_values() -> None:
    values = list(range(1000))
    assert [quantile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]


@pytest.mark.parametrize(
    ("make", "producers", "consumers", "payload"),
    [
        (BlockingLog, 1, 2, ORDERS),
        pytest.param(BlockingLog, 3, 1, Payload(64 * 1024), marks=SLOW),
        pytest.param(TrioLog, 2, 1, ORDERS, marks=SLOW),
        (trio_log_batched, 1, 1, ORDERS),
        pytest.param(blocking_log_batched, 1, 1, Payload(1024), marks=SLOW),
        (MsgpackPipe, 1, 2, ORDERS),
        pytest.param(pipe_batched, 1, 1, ORDERS, marks=SLOW),
        pytest.param(MultiprocessingQueue, 2, 1, ORDERS, marks=SLOW),
        (RawPipe, 1, 1, ORDERS),
        (BareLoop, 1, 0, ORDERS),
    ],
)
def test_every_event_of_every_producer_arrives_at_every_consumer(
    make: MakeSystem, producers: int, consumers: int, payload: Payload, tmp_path: Path
) -> None:
    settings = Settings(directory=str(tmp_path))
    done = transfer(make, 200, consumers, settings, producers=producers, payload=payload)
    assert done.count == 200 * producers
    figures = throughput_of(done)
    assert figures["events_per_s"] > 0
    assert figures["cpu_us"] >= figures["producer_cpu_us"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make", [BlockingLog, pytest.param(TrioLog, marks=SLOW), pytest.param(MsgpackPipe, marks=SLOW)]
)
def test_delays_are_measured_event_by_event(make: MakeSystem, tmp_path: Path) -> None:
    settings = Settings(directory=str(tmp_path))
    done = transfer(make, 50, 1, settings, rate_per_s=1000.0)
    assert len(done.delays_ns) == 50
    assert min(done.delays_ns) > 0
    assert done.sending_s >= 49 / 1000


def test_an_end_that_raises_fails_the_run_with_its_traceback(tmp_path: Path) -> None:
    settings = Settings(directory=str(tmp_path))
    with pytest.raises(RunFailed, match="NotImplementedError"):
        transfer(BareConsumer, 10, 1, settings)


class BareConsumer(System):
    """Nobody who can do anything."""

    def produce(self, task: object) -> None:
        raise NotImplementedError

    consume = produce


def test_names_of_workloads_are_different() -> None:
    names = [one.name for one in WORKLOADS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name", ["throughput", "payloads", "fan-out", "producers", "latency", "sync"]
)
def test_goals_name_contenders_that_there_are(name: str, tmp_path: Path) -> None:
    (workload,) = [make() for make in WORKLOADS if make.name == name]
    with workload.opened(Settings(directory=str(tmp_path))) as contenders:
        names = {one.name for one in contenders}
    for goal in workload.goals:
        assert isinstance(goal, RatioGoal)
        others = (goal.to,) if isinstance(goal.to, str) else goal.to
        assert {goal.of, *others} <= names


@pytest.mark.slow
def test_a_small_run_from_end_to_end(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, str(SCRIPTS / "benchmark")),
            *("--quick", "--only", "sync", "--dir", str(tmp_path), "--json", str(output)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(output.read_text())
    (workload,) = document["workloads"]
    contenders = {one["name"]: one for one in workload["contenders"]}
    assert contenders["one at a time: log"]["medians"]["events_per_s"] > 0
    assert contenders["64 tasks: log"]["failed"] is None
    assert "one at a time: log" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (
        subprocess.run(
            [sys.executable, str(SCRIPTS / "benchmark"), "--only", "nonsense"],
            capture_output=True,
            check=False,
        ).returncode
        == 2
    )
