"""The engines that tests of faults run over: one line for each, in `ENGINES`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests import servers
from tests.conformance.backends import BACKENDS, Ability
from tests.engines.faulty_proxy import Proxy, proxy_of
from tests.servers import Server
from tests.shares import turns


@dataclass(frozen=True)
class Engine:
    """An engine over one of its servers, in one event loop."""

    server: str
    """A name of `servers.KINDS`."""
    backend: str
    """A name of the conformance suite's, which knows what the engine lacks."""
    event_loop: Literal["trio", "asyncio"]
    is_slow: bool = False
    """Whether it is left to the slow tests, since another line has the same engine."""

    @property
    def name(self) -> str:
        """Which of the lines this is, in names of tests."""
        return f"{self.server}-{self.event_loop}"

    def lacks(self, ability: Ability) -> str:
        """Why it lacks that; empty if it does not."""
        [backend] = [one for one in BACKENDS if one.name == self.backend]
        return backend.lacks.get(ability, "")


ENGINES = (
    Engine("valkey", "valkey", "trio"),
    Engine("valkey", "valkey", "asyncio", is_slow=True),
    Engine("redis", "redis", "trio", is_slow=True),
    Engine("nats", "jetstream", "asyncio"),
    Engine("nats", "jetstream", "trio", is_slow=True),
    Engine("kafka", "kafka", "trio", is_slow=True),
)


_WAYS = "parametrize"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for an `engine` over all; in the plain form, over one in turns."""
    has_own = any("engine" in one.args[0] for one in metafunc.definition.iter_markers(_WAYS))
    if "engine" in metafunc.fixturenames and not has_own:
        plain = [one for one in ENGINES if not one.is_slow]
        ways = turns(metafunc.definition.nodeid, plain, [one.name for one in plain])
        ways += [
            pytest.param(one, id=one.name, marks=pytest.mark.slow) for one in ENGINES if one.is_slow
        ]
        metafunc.parametrize("engine", ways, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    servers.require(found.server)
    return found


@pytest.fixture
def anyio_backend(engine: Engine) -> str:
    return engine.event_loop


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, which it may kill, stop and start again."""
    settings = servers.KINDS[engine.server].no_loss
    with servers.own(engine.server, tmp_path / engine.server, *settings) as own:
        yield own


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy before that server."""
    with proxy_of(server) as proxy:
        yield proxy


@pytest.fixture
def through(server: Server, proxy: Proxy) -> str:
    """What a log's name is put behind for an address that leads through the proxy."""
    return server.address_by_proxy
