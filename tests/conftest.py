"""What all tests share: surroundings, hypothesis profiles, a look for what a test left behind."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from eventlog import spawn
from tests import nursery, programs, servers
from tests.processes import read
from tests.shares import is_in
from tests.surroundings import make_usual

HERE = Path(__file__).resolve().parent
SLOW_S = 900
"""The limit of a slow test, which takes minutes; against a hang, as that of the others."""
LEAVE_S = 20.0
"""A child or thread that was told to end may take this long; it is then one left behind."""

make_usual()
_SLOW_MACHINE = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "gate", max_examples=60, deadline=None, suppress_health_check=_SLOW_MACHINE, print_blob=True
)
settings.register_profile(
    "long", max_examples=3000, deadline=None, suppress_health_check=_SLOW_MACHINE, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
if settings.get_current_profile_name() == "gate":
    # Else each process of a run looks through all modules for constants, which takes it seconds.
    vars(providers)["_get_local_constants"] = lambda: providers._local_constants


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share", metavar="K/N", help="Run the tests of share K of N, which have all between them."
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give slow tests time; leave those of the share that is asked for."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_S))
    if share := config.getoption("--share"):
        chosen = [is_in(share, item.nodeid) for item in items]
        left = [item for item, is_chosen in zip(items, chosen, strict=True) if not is_chosen]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item, is_chosen in zip(items, chosen, strict=True) if is_chosen]


def pytest_collection(session: pytest.Session) -> None:
    """Import all modules of tests, each process of a run beginning with others.

    In a fresh checkout they are compiled meanwhile, for ten seconds: so each process does its part,
    and finds that of the others done.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or [Path(one).resolve() for one in session.config.args] != [HERE]:
        return
    paths = [path.relative_to(HERE) for path in sorted(HERE.rglob("test_*.py"))]
    first = len(paths) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in paths[first:] + paths[:first]:
        # What fails here, as marks of a folder that are not known yet, pytest meets again.
        with suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
            import_module(".".join(path.with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Spare the garbage collector all the tests that it would look at in each of its runs."""
    gc.collect()
    gc.freeze()


def _children() -> set[int]:
    """The pids of this process's children that still run or were not waited for."""
    tasks = "/proc/self/task"
    return {
        int(pid) for task in os.listdir(tasks) for pid in read(f"{tasks}/{task}/children").split()
    }


def _threads() -> set[threading.Thread]:
    """Threads that would keep the interpreter from ending; trio caches daemon threads."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _actions() -> dict[int, Any]:
    """What is done on the signals that end a program."""
    return {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}


def _described(pid: int) -> str:
    with suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return f"process {pid}: {line or 'ended, and nobody waited for it'}"
    return f"process {pid}"


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a child process or a thread behind.

    What it has changed of signals is taken back: programs that later tests start would have it.
    """
    children, threads, actions = _children(), _threads(), _actions()
    yield
    for number, action in actions.items():
        signal.signal(number, action)
    deadline = time.monotonic() + LEAVE_S
    while left := (_children() - children - servers.running()) or (_threads() - threads):
        if time.monotonic() > deadline:
            names = [_described(one) if isinstance(one, int) else repr(one) for one in left]
            pytest.fail(f"the test left behind: {', '.join(names)}")
        time.sleep(0.01)  # a bounded look at what ends by itself


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of trio by `trio.run`, if no fixture of it is to share its loop.

    Else each turn of the loop goes through another thread and back.
    """
    test, given = pyfuncitem.obj, pyfuncitem.funcargs
    if given.get("anyio_backend") != "trio" or not inspect.iscoroutinefunction(test):
        return None
    info = pyfuncitem._fixtureinfo
    fixtures = [known[-1].func for name, known in info.name2fixturedefs.items() if name in given]
    if any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in fixtures):
        return None
    trio.run(partial(test, **{name: given[name] for name in info.argnames}))
    return True


@pytest.fixture(scope="session")
def _nursery() -> Iterator[nursery.Nursery | None]:
    """The process that others are forked from, if this machine can."""
    if not nursery.IS_POSSIBLE:
        yield None
        return
    made = nursery.Nursery()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _quick_starts(
    request: pytest.FixtureRequest, _nursery: nursery.Nursery | None
) -> Iterator[None]:
    """Have what a test starts forked, so that it imports nothing."""
    # Not the fixture `monkeypatch`: what a test changes by that one is to go before other fixtures.
    with pytest.MonkeyPatch.context() as patched:
        if _nursery is not None and not request.node.get_closest_marker("real_starts"):
            patched.setattr(spawn, "subprocess", _nursery)
            patched.setattr(subprocess, "Popen", programs.popen_by(_nursery))
        yield


def pytest_sessionfinish() -> None:
    """End the servers that tests have shared."""
    servers.end_shared()
