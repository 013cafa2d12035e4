"""The backends and flavours that the suite runs over, and what each of them lacks, with the reason.

A test that needs more than every log has says so with `@needs(...)`; it does not run over a
backend or a flavour that lacks it, for the reason that stands here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests import servers

Ability = Literal[
    "processes",  # several processes open the same log
    "restart",  # the log survives the end of whatever serves it
    "writer process",  # a process of its own serves the log and can be killed
    "offline reading",  # stored events are read while nothing serves the log
    "pickled handles",  # a handle can be handed to another process
    "directory",  # the log is a directory of files
    "private logs",  # a path that names a log of one handle alone
    "cancellation",  # a call that waits can be cancelled
    "event loop",  # calls are awaited
    "members",  # groups have members that lease
    "counts of the writer",  # `statistics` and `status` have what the writer has counted
    "bounds at the call",  # `read` ends at what was the last event at the call, not at its use
    "segments",  # the log is made of segments, and its batches are kept as they were
    "own durability",  # the log has the durability that it is made with, and stores it
    "waiting for room",  # what no consumer has acknowledged is kept, and a full log refuses more
    "prompt retention",  # what is over the limit goes at once, a few events at a time
    "sync",  # an append can be acknowledged once it is on the disk
    "large events",  # of 16 MiB
    "conditional appends",  # `expect=`
    "conditional on the last event",  # `expect_last=`
    "changed options",  # `configure` changes retention and what a full log does
    "trimming",  # the oldest events can be deleted by their numbers
    "states",  # an acknowledgement may have a state
    "due times",  # groups hand an event out from a time on, and until another
    "no due times",  # they are refused
    "corrected letters",  # a dead letter can be retried with another event in its place
]

EVERY_FLAVOUR = frozenset({"trio", "asyncio", "blocking"})


@dataclass(frozen=True)
class Backend:
    """One way to store a log."""

    name: str
    path_of: Callable[[Path, str], str]
    """The path of the log of a name, given a directory that belongs to the test alone."""
    lacks: Mapping[Ability, str] = field(default_factory=dict)
    flavours: frozenset[str] = EVERY_FLAVOUR
    """Those that it is tested in."""
    slow: frozenset[str] = frozenset()
    """Those of them that are left to the slow tests: engines over servers in every flavour, and
    of the others, what another flavour or engine mostly goes through too."""
    share: Mapping[str, str] = field(default_factory=dict)
    """By flavour, the share of tests that is not left to the slow ones; all if it is not named."""
    ignores: frozenset[str] = frozenset()
    """Options that tests give for the sake of local files, and that mean nothing to it."""


@dataclass(frozen=True)
class Flavour:
    """One way to call it; the tests themselves run on `event_loop`."""

    name: str
    event_loop: Literal["trio", "asyncio"]
    lacks: Mapping[Ability, str] = field(default_factory=dict)


_IN_MEMORY = "a log in memory lives in one process and ends with it"
_NO_LOOP = "a thread that waits in a call cannot be cancelled"

_LACKS_IN_MEMORY: dict[Ability, str] = {
    "processes": _IN_MEMORY,
    "restart": _IN_MEMORY,
    "writer process": _IN_MEMORY,
    "offline reading": _IN_MEMORY,
    "pickled handles": _IN_MEMORY,
    "directory": _IN_MEMORY,
}

_ON_SERVER = "a server does not tell what its clients have done"

_NO_DUE_TIMES: dict[Ability, str] = {"due times": "groups on servers know no times of events"}
_HAS_DUE_TIMES: dict[Ability, str] = {"no due times": "it has them"}

_LACKS_ON_SERVERS: dict[Ability, str] = {
    **_NO_DUE_TIMES,
    "writer process": "a server serves the log, and many others",
    "offline reading": "only its server has the log",
    "directory": "the log is on a server",
    "own durability": "durability is what the server is set to",
    "private logs": "all handles of an address have one log",
    "counts of the writer": _ON_SERVER,
    "bounds at the call": "a call that does not wait cannot ask a server",
    "segments": "a server stores each event by itself",
    "conditional appends": "a server does not know the last event of a key",
    "changed options": "a stream is set with the tools of its server",
    "corrected letters": "a server hands out what it has stored",
}


def _on_redis(name: str, folder: Path, log: str) -> str:
    servers.require(name)
    return f"{servers.shared(name).address}{str(folder).strip('/')}/{log}"


def _on_nats(folder: Path, log: str) -> str:
    """A stream of this process's server, named after the test's directory."""
    servers.require("nats")
    word = hashlib.sha256(f"{folder}/{log}".encode()).hexdigest()[:16]
    return f"{servers.shared('nats').address}test-{word}"


def _on_kafka(folder: Path, log: str) -> str:
    """A topic of this test run's broker, named after the test's directory."""
    servers.require("kafka")
    word = hashlib.sha256(f"{folder}/{log}".encode()).hexdigest()[:16]
    return f"{servers.shared('kafka').address}test-{word}"


BACKENDS = (
    Backend(
        "local",
        path_of=lambda folder, name: str(folder / name),
        lacks={
            **_HAS_DUE_TIMES,
            "private logs": "a directory is the same log for everybody",
        },
        slow=frozenset({"asyncio"}),
        share={"blocking": "0/2"},
    ),
    Backend(
        "memory",
        path_of=lambda folder, name: f"memory:{folder}/{name}",
        lacks={**_LACKS_IN_MEMORY, **_HAS_DUE_TIMES},
        slow=frozenset({"trio", "blocking"}),
    ),
    Backend(
        "toy",
        path_of=lambda folder, name: f"toy://{folder}/{name}",
        lacks={
            **{key: why for key, why in _LACKS_IN_MEMORY.items() if key != "pickled handles"},
            **_NO_DUE_TIMES,
            "counts of the writer": _ON_SERVER,
            "bounds at the call": "a call that does not wait cannot ask a server",
            "segments": "a server stores each event by itself",
            "changed options": "a stream is set with the tools of its server",
            "trimming": "its driver has no such call",
            "corrected letters": "a server hands out what it has stored",
            "private logs": "all handles of an address have one log",
            "conditional appends": "its records have no keys that it knows",
        },
        # The shell is tested here, and its colours with the engines that people use.
        flavours=frozenset({"trio", "blocking"}),
        slow=frozenset({"trio"}),  # the blocking shell is built on the asynchronous one
        share={"blocking": "1/2"},
        ignores=frozenset({"segment_bytes"}),
    ),
    Backend(
        "valkey",
        path_of=lambda folder, name: _on_redis("valkey", folder, name),
        lacks=_LACKS_ON_SERVERS,
        ignores=frozenset({"segment_bytes"}),
        slow=EVERY_FLAVOUR,
    ),
    Backend(
        "redis",
        path_of=lambda folder, name: _on_redis("redis", folder, name),
        lacks=_LACKS_ON_SERVERS,
        flavours=frozenset({"trio"}),  # what differs between the two is the server alone
        slow=EVERY_FLAVOUR,
        ignores=frozenset({"segment_bytes"}),
    ),
    Backend(
        "jetstream",
        path_of=_on_nats,
        lacks={
            **_LACKS_ON_SERVERS,
            "waiting for room": "a stream deletes what is over its limit, whoever needs it",
            "sync": "a client cannot tell what the server syncs",
            "large events": "a message is at most 1 MiB, unless the server is set otherwise",
            "trimming": "its streams deny it, so that nobody deletes an event by mistake",
        },
        slow=EVERY_FLAVOUR,
        ignores=frozenset({"segment_bytes"}),
    ),
    Backend(
        "kafka",
        path_of=_on_kafka,
        lacks={
            **_LACKS_ON_SERVERS,
            "waiting for room": "a topic deletes what is over its limit, whoever needs it",
            "conditional on the last event": "a broker appends whatever comes",
            "prompt retention": "a broker deletes whole segments of a MiB and more, after a while",
            "states": "earlier releases, which follow the same journal, know of no states",
        },
        slow=EVERY_FLAVOUR,  # a broker takes a second for a test
        ignores=frozenset({"segment_bytes"}),
    ),
)

FLAVOURS = (
    Flavour("trio", "trio"),
    Flavour("asyncio", "asyncio"),
    Flavour(
        "blocking",
        "trio",
        lacks={
            "cancellation": _NO_LOOP,
            "event loop": "the blocking flavour runs none",
        },
    ),
)


def needs(*abilities: Ability) -> pytest.MarkDecorator:
    """Mark a test, or a module, that is about more than every log and every flavour has."""
    return pytest.mark.needs(*abilities)


def has(backend: Backend, flavour: Flavour, abilities: tuple[Ability, ...]) -> bool:
    """Whether the two have all that a test needs."""
    return not any(one in backend.lacks or one in flavour.lacks for one in abilities)
