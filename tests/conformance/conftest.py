"""The fixtures of the conformance suite: `logs`, over every backend and every flavour."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from multiprocess import resource_tracker

from tests.shares import is_in

from .backends import BACKENDS, FLAVOURS, Backend, Flavour, has
from .logs import Logs

HERE: Final = Path(__file__).parent
sys.path.append(str(HERE / "engines"))  # a package that ships an engine, as if it was installed
TEST_S: Final = 200.0
"""No test may take longer; the longest takes a few seconds, on a loaded machine half a minute."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*abilities): what the backend and the flavour must have (backends.py)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that uses a log once for each backend and flavour that has what it needs."""
    if "flavour" not in metafunc.fixturenames:
        return
    abilities = tuple(
        ability for mark in metafunc.definition.iter_markers("needs") for ability in mark.args
    )
    found = [
        (backend, flavour)
        for backend in BACKENDS
        for flavour in FLAVOURS
        if flavour.name in backend.flavours and has(backend, flavour, abilities)
    ]
    test = metafunc.definition.nodeid
    if metafunc.config.option.markexpr == "not slow":
        # To collect the others, three of four, only to leave them out takes each process seconds.
        found = [one for one in found if not _is_slow(*one, test)] or found
    metafunc.parametrize(("backend", "flavour"), [_param(*one, test) for one in found])


def _is_slow(backend: Backend, flavour: Flavour, test: str) -> bool:
    """Whether it is left to the slow tests, always or for this test."""
    share = backend.share.get(flavour.name)
    return flavour.name in backend.slow or (share is not None and not is_in(share, test))


def _param(backend: Backend, flavour: Flavour, test: str) -> Any:
    marks = pytest.mark.slow if _is_slow(backend, flavour, test) else ()
    return pytest.param(backend, flavour, id=f"{backend.name}-{flavour.name}", marks=marks)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound every test of this directory in time."""
    for item in items:
        if isinstance(item, pytest.Function) and HERE in item.path.parents:
            item.obj = _bounded(item.obj)


def _bounded(test: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(test):
        return test

    @functools.wraps(test)
    async def bounded(**arguments: Any) -> None:
        with anyio.fail_after(TEST_S):
            await test(**arguments)

    return bounded


@pytest.fixture(scope="session", autouse=True)
def _resource_tracker() -> None:
    """Start the process that `multiprocess` keeps for good: no test shall seem to leave it."""
    resource_tracker.ensure_running()


@pytest.fixture
def anyio_backend(flavour: Flavour) -> str:
    """The event loop that the test runs on."""
    return flavour.event_loop


@pytest.fixture
def logs(backend: Backend, flavour: Flavour, tmp_path: Path) -> Iterator[Logs]:
    """The logs of the test; afterwards no process that served one of them is left."""
    logs = Logs(backend, flavour, tmp_path)
    yield logs
    stubborn = logs.end_writers()
    assert not stubborn, f"writers that SIGTERM did not end: {stubborn}"
    assert not logs.writers()
