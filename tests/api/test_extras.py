"""Extras: whatever needs a package that is not installed says how to install it, in one way."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import polars
import pytest

from eventlog import NotSupported, blocking
from eventlog.api.extras import EXTRAS
from eventlog.cli.export import Format, _check_form
from eventlog.cli.metrics import metrics_at
from eventlog.cli.query import query
from eventlog.cli.top import _screen
from eventlog.cli.ui import ui

PROJECT: Final = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
OF_DEVELOPERS: Final = {"bench", "dev", "docs", "fuzz", "plot"}


def with_log(use: Callable[[blocking.EventLog], Any]) -> Callable[[], Any]:
    def run() -> None:
        with blocking.open("memory:") as log:
            log.append({"n": 1})
            use(log)

    return run


USES: Final[list[tuple[str, Callable[[], Any]]]] = [
    ("arrow", with_log(lambda log: log.to_arrow())),
    ("arrow", with_log(lambda log: polars.DataFrame(log.read(1)))),
    ("arrow", lambda: _check_form(Format.CSV, "file", None)),
    ("eventsourcing", lambda: import_module("eventlog.eventsourcing")),
    ("jetstream", lambda: blocking.open("nats://127.0.0.1:1/log")),
    ("kafka", lambda: blocking.open("kafka://127.0.0.1:1/log")),
    ("metrics", lambda: metrics_at(":0", "log")),
    ("opentelemetry", lambda: import_module("eventlog.tracing")),
    ("pandas", with_log(lambda log: log.to_pandas())),
    ("polars", with_log(lambda log: log.to_polars())),
    ("query", lambda: query("nats://127.0.0.1:1/log", "select 1")),
    ("redis", lambda: blocking.open("redis://127.0.0.1:1/0/log")),
    ("top", lambda: _screen([], 1.0)),
    ("ui", lambda: ui(["log"])),
]


@pytest.mark.parametrize(
    ("extra", "use", "module"),
    [(extra, use, module) for extra, use in USES for module in EXTRAS[extra]],
    ids=[f"{extra}-{module}" for extra, _ in USES for module in EXTRAS[extra]],
)
def test_a_package_that_is_missing_is_named_with_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, extra: str, use: Callable[[], Any], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for ours in ("eventlog.eventsourcing", "eventlog.tracing"):
        monkeypatch.delitem(sys.modules, ours, raising=False)
    wanted = rf" needs? {EXTRAS[extra][module]}: pip install 'eventlog\[{extra}\]'$"
    with pytest.raises(NotSupported, match=wanted) as raised:
        use()
    assert raised.value.option == extra


def test_every_extra_is_known_with_the_packages_that_it_brings_and_used_here() -> None:
    declared = PROJECT["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - OF_DEVELOPERS == {extra for extra, _ in USES}
    for extra, modules in EXTRAS.items():
        named = {re.split(r"[<>=\[]", one)[0] for one in declared[extra]}
        assert set(modules.values()) == named, extra
