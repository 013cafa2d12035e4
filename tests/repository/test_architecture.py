"""The repository checks itself: who imports whom, what is cheap to import, what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import rlcompleter
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import eventlog
import workers
from eventlog import errors

PACKAGE: Final = Path(eventlog.__file__).parent

SCREEN_LINES: Final = 25
"""Lines of a terminal."""
GROUND: Final = {"checksum", "config", "errors", "event", "api", "system"}
"""What everything stands on: values, the bytes of an event, what a log is, doors to the system."""
LOCAL: Final = GROUND | {"local.storage"}

MAY_IMPORT: Final[dict[str, set[str]]] = {
    "errors": set[str](),
    "checksum": set[str](),
    "config": {"errors"},
    "system": {"errors"},
    "spawn": {"system"},
    "event": {"config", "errors"},
    "api": {"arrow", "checksum", "config", "errors", "event", "system"},
    "arrow": {"config", "errors", "event"},
    "api.engines": {"errors", "config", "api", "local", "memory"},
    "api.opening": {"errors", "config", "api", "api.engines"},
    "local": GROUND | {"local"},
    "local.wire": GROUND,
    "local.storage.formats": GROUND,
    "local.storage": GROUND | {"local.storage.formats"},
    "local.storage.log": LOCAL,
    "local.storage.reading": LOCAL,
    "local.storage.starting": LOCAL,
    "local.groups": LOCAL | {"local.wire"},
    "local.rendezvous": LOCAL,
    "local.writer": LOCAL | {"local.wire", "local.groups", "local.rendezvous"},
    "local.client": LOCAL | {"local.wire", "local.groups", "local.rendezvous", "spawn"},
    "memory": GROUND | {"blocking"},
    "remote": GROUND | {"memory"},
    "redis": GROUND | {"remote"},
    "jetstream": GROUND | {"remote"},
    "kafka": GROUND | {"remote"},
    "sql": {"arrow", "errors"},
    "blocking": GROUND,
    "aggregates": GROUND,
    "tracing": GROUND,
    "logging_handler": GROUND | {"blocking"},
    "eventsourcing": GROUND | {"blocking"},
    "tools": LOCAL | {"local.groups", "local.rendezvous"},
    "testing": LOCAL | {"local.wire", "local.client"},
    "demo": GROUND | {"blocking"},
    "terminal": GROUND | {"tools"},
    "monitor": GROUND | {"blocking", "terminal"},
    "cli": GROUND | {"arrow", "local", "sql", "blocking", "demo", "monitor", "terminal", "tools"},
    "__init__": GROUND | {"memory", "blocking"},
    "__main__": {"cli"},
}
"""The drawing of the house: each part, and the parts that it may use beside itself.

The longest name that fits a module is its part. Only `api.engines` knows the engines, and only
inside its functions (see `test_engines_are_loaded_by_their_address_alone`)."""

PURE: Final = {
    "api.arguments": set[str](),
    "api.batches": set[str](),
    "api.latest": set[str](),
    "api.operated": set[str](),
    "api.leaving": set[str](),
    "api.expectation": set[str](),
    "api.group": set[str](),
    "api.refusals": set[str](),
    "api.statistics": set[str](),
    "api.status": set[str](),
    "api.stream_options": set[str](),
    "api.table_rows": set[str](),
    "arrow.alike": set[str](),
    "arrow.beside": set[str](),
    "arrow.columns": set[str](),
    "arrow.decoding": set[str](),
    "arrow.passes": set[str](),
    "arrow.rows": set[str](),
    "arrow.shape": set[str](),
    "arrow.tables": set[str](),
    "arrow.types": set[str](),
    "config": set[str](),
    "event.cause": set[str](),
    "event.due": set[str](),
    "event.envelope": {"time.time_ns"},
    "event.ids": {"os.urandom"},
    "event.moments": set[str](),
    "event.scheduled": set[str](),
    "errors": set[str](),
    "event.payload": set[str](),
    "event.results": {"time.time_ns"},
    "api.positions": set[str](),
    "event.bad_values": set[str](),
    "event.arrays": set[str](),
    "event.texts": set[str](),
    "event.text_columns": set[str](),
    "event.many_events": set[str](),
    "event.batch_builder": {"time.time_ns"},
    "event.record_batch": set[str](),
    "event.filters": set[str](),
    "event.packed_columns": set[str](),
    "local.storage.formats.changed_options": set[str](),
    "local.storage.formats.format": set[str](),
    "local.storage.formats.key_runs": set[str](),
    "local.storage.formats.layout": set[str](),
    "local.storage.starting.missing": set[str](),
    "local.storage.formats.offset_format": set[str](),
    "local.storage.formats.producers": set[str](),
    "local.storage.formats.recovery": set[str](),
    "local.storage.formats.refusals": set[str](),
    "local.wire": set[str](),
    "local.wire.connection": set[str](),
    "local.wire.messages": set[str](),
    "local.wire.group_messages": set[str](),
    "local.wire.table": set[str](),
    "local.client.conversations": set[str](),
    "local.client.membership": set[str](),
    "local.client.out_batch": set[str](),
    "local.client.outbox": set[str](),
    "terminal.fields": set[str](),
    "terminal.where": set[str](),
    "tools.doctor.findings": set[str](),
    "tools.doctor.readers": set[str](),
    "memory.groups": set[str](),
    "memory.keys": set[str](),
    "memory.letters": set[str](),
    "redis.address": set[str](),
    "redis.entries": set[str](),
    "jetstream.address": set[str](),
    "jetstream.state": set[str](),
    "jetstream.streams": set[str](),
    "jetstream.times": set[str](),
    "kafka.address": set[str](),
    "kafka.group_state": set[str](),
    "kafka.ledger": set[str](),
    "kafka.topics": set[str](),
    "remote.group_state": set[str](),
    "remote.numbers": set[str](),
    "local.groups.acks": set[str](),
    "local.groups.endings": set[str](),
    "local.groups.letter_content": set[str](),
    "local.groups.letter_numbers": set[str](),
    "local.groups.holders": set[str](),
    "local.groups.order": set[str](),
    "local.groups.postponed": set[str](),
    "local.groups.ranges": set[str](),
    "local.groups.reconcile": set[str](),
    "local.groups.records": set[str](),
    "local.groups.state": set[str](),
    "sql.limits": set[str](),
    "tools.transfer.json_lines": set[str](),
    "tools.transfer.packed": set[str](),
    "tools.transfer.records": {"time.time_ns"},
}
"""Bytes and decisions, apart from I/O; and what little of the system each of them asks."""

NOT_PURE: Final = {
    *("anyio", "asyncio", "fcntl", "io", "mmap", "multiprocess", "multiprocessing"),
    *("os", "pathlib", "select", "shutil", "signal", "socket", "sniffio", "subprocess"),
    *("tempfile", "threading", "time", "trio"),
}
"""Modules that touch a file, a clock, a pipe or an event loop."""

LINES_MAX: Final = 420
"""A module that is longer has more than one job."""


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES: Final = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES: Final = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def named_in(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The modules that a file names in an import, wherever it stands, without and with names."""
    modules: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports say where from"
            modules.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(modules), frozenset(names)


@cache
def imports_of(name: str) -> frozenset[str]:
    """Every module that the module names in an import, wherever it stands; ours without prefix."""
    _, names = named_in(MODULES[name])
    return frozenset(one.removeprefix("eventlog.") for one in names)


def top_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def part_of(name: str) -> str:
    """The longest part of the drawing that the module is within."""
    return max((one for one in MAY_IMPORT if is_within(name, one)), key=len)


def is_ours(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in MODULES if known)


# --- the drawing -----------------------------------------------------------------------------


def test_every_part_is_in_the_drawing() -> None:
    assert {top_of(name) for name in MODULES} == {top_of(part) for part in MAY_IMPORT}


def may_import(name: str, imported: str) -> bool:
    part = part_of(name)
    is_own = is_within(imported, part) and part_of(imported) == part
    return is_own or any(is_within(imported, one) for one in MAY_IMPORT[part])


def test_imports_point_down() -> None:
    used = [(name, one) for name in MODULES for one in filter(is_ours, imports_of(name))]
    assert [f"{name} imports {one}" for name, one in used if not may_import(name, one)] == []


def package_of(name: str) -> str:
    """The folder that a module lies in; a module at the top is a folder of its own."""
    return name if name in PACKAGES else name.rpartition(".")[0] or name


def test_packages_form_no_cycle() -> None:
    """Types included: an import under TYPE_CHECKING ties two packages together as well."""
    uses: dict[str, set[str]] = {package_of(name): set() for name in MODULES}
    for name in set(MODULES) - {"__init__", "api.engines"}:  # these two hand out lazily
        for imported in filter(is_ours, imports_of(name)):
            module = imported if imported in MODULES else imported.rpartition(".")[0]
            uses[package_of(name)].add(package_of(module))
    for one, others in uses.items():
        others -= {other for other in others if is_within(one, other) or is_within(other, one)}
    assert list(TopologicalSorter(uses).static_order())


def test_engines_are_loaded_by_their_address_alone() -> None:
    """Nobody but `api.engines` imports an engine, but for what is about its files."""
    engines = {"local", "memory", "jetstream", "kafka", "redis"}
    may = {"api.engines", "tools", "cli", "testing", "__init__", "blocking", "remote.modelled"}
    for name in MODULES:
        if top_of(name) in engines:
            strangers = engines - {top_of(name)}
        elif {name, part_of(name), top_of(name)} & may:
            continue
        else:
            strangers = engines
        assert not {top_of(one) for one in filter(is_ours, imports_of(name))} & strangers, name
    tree = ast.parse(MODULES["api.engines"].read_text())
    at_the_top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any("local" in str(one) or "memory" in str(one) for one in at_the_top)


def test_nothing_imports_what_is_for_tests() -> None:
    for name in MODULES:
        assert not any(one.startswith("testing") for one in imports_of(name)), name


def test_pure_modules_do_no_io() -> None:
    for name, allowed in PURE.items():
        nodes = list(ast.walk(tree_of(MODULES[name])))
        modules = {top_of(one) for one in imports_of(name)} & NOT_PURE
        used = {
            f"{node.value.id}.{node.attr}"
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        }
        assert used == allowed, name
        assert modules == {top_of(one) for one in used}, name
        calls = {
            node.func.id
            for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"open", "print", "input", "eval", "exec"}, name


def test_event_loops_stay_in_the_shells() -> None:
    loops = {"trio", "anyio", "asyncio", "sniffio"}
    shells = {
        *("local.client.asynchronous", "local.log", "local.stream"),
        *("local.publisher", "local.group"),
        *("memory.log", "memory.group", "api.portal", "api.loops", "api.opening"),
        *("api.data", "api.publisher_block", "api.streams", "api.table", "arrow.asynchronous"),
        *("remote.calls", "remote.handle", "remote.log", "remote.producing", "remote.publisher"),
        *("redis.link", "redis.group"),
        *("remote.stream", "remote.pipeline", "remote.group", "remote.member", "remote.modelled"),
        *("jetstream.appends", "jetstream.connection", "jetstream.crossing", "jetstream.link"),
        *("jetstream.document", "jetstream.watch"),
        *("kafka.client", "kafka.sender", "kafka.reading", "kafka.journal", "kafka.group"),
        *("monitor.page.board", "monitor.page.browsing"),
        *("monitor.page.routes", "monitor.page.serving"),
    }
    for name in MODULES:
        found = {top_of(one) for one in imports_of(name)} & loops
        assert not found or name in shells or part_of(name) == "local.writer", f"{name}: {found}"


SERIALISERS: Final = {"pickle", "dill", "cloudpickle"}


def test_no_module_serialises_code() -> None:
    users = {n for n in MODULES if SERIALISERS & {top_of(one) for one in imports_of(n)}}
    assert users == set(), "nothing is ever unpickled from a pipe or a file"


# --- the pools, which stand on the log -----------------------------------------------------------

POOL_PACKAGE: Final = PACKAGE.parent / "workers"
POOL_MODULES: Final = sorted(POOL_PACKAGE.rglob("*.py"))
PUBLIC: Final = {"eventlog", "eventlog.blocking"}


def full_imports(path: Path) -> frozenset[str]:
    """The modules that a file names in an import, wherever it stands."""
    return named_in(path)[0]


def imports_of_log(path: Path) -> set[str]:
    return {name for name in full_imports(path) if top_of(name) == "eventlog"}


def test_pools_use_only_public_names_of_the_log() -> None:
    """The two commands look alike and share their parts, so the command line is left out."""
    for path in POOL_PACKAGE.glob("*.py"):
        assert imports_of_log(path) <= PUBLIC, path


def test_the_command_line_of_pools_knows_no_engine() -> None:
    """The two commands share their looks; what a log holds they ask through `eventlog.cli.address`.

    So `workers groups` and `workers dead` do on any engine what they do with a directory.
    """
    shared = ("eventlog.cli.", "eventlog.terminal.")
    for path in (POOL_PACKAGE / "cli").glob("*.py"):
        others = {name for name in imports_of_log(path) if not name.startswith(shared)}
        assert others <= PUBLIC | {"eventlog.system"}, path


def test_what_decides_in_a_worker_does_no_io() -> None:
    """So the simulation of the tests drives it, with its own clock, where a worker process does."""
    for name in ("loop", "policy", "results"):
        imported = full_imports(POOL_PACKAGE / f"{name}.py")
        assert not {top_of(one) for one in imported} & NOT_PURE, name


def test_the_log_knows_nothing_of_pools() -> None:
    """But for the demonstration, which is a program that uses both."""
    for name, path in MODULES.items():
        users = {one for one in full_imports(path) if one.split(".")[0] == "workers"}
        assert not users or top_of(name) == "demo", name


def test_only_the_modules_on_a_handlers_way_serialise_code() -> None:
    users = {path.stem for path in POOL_MODULES if full_imports(path) & SERIALISERS}
    assert users == {"anatomy", "packing", "rebuilding"}


# --- what is cheap to import -----------------------------------------------------------------

EXPENSIVE: Final = {
    *("trio", "anyio", "asyncio", "multiprocess", "multiprocessing", "typer", "rich"),
    *("argparse", "importlib.metadata", "pathlib"),
}


def loaded_after(program: str, tmp_path: Path) -> set[str]:
    """The modules that a fresh interpreter has after running the program."""
    end = "\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) + end],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.real_starts
@pytest.mark.parametrize(
    "program",
    [
        "import eventlog",
        "import eventlog; eventlog.EventEnvelope(1), eventlog.SeekPosition.LATEST",
        "import eventlog.blocking",
        "import eventlog.local.storage.starting.start, eventlog.local.storage.reading.reader",
        "import eventlog.local.wire.connection, eventlog.local.client.outbox",
        """
        import eventlog
        with eventlog.blocking.open("memory:") as log:
            log.append({"order": 7})
            assert [e.seq_no for e in log.read(1)] == [1]
        """,
        """
        from eventlog.testing import batch_of, open_storage, stored_events
        log = open_storage("log")
        log.append(batch_of(1))
        log.close()
        import eventlog
        with eventlog.blocking.open("log") as log:
            assert [e.event for e in log.read(1)] == [1]
            with log.subscribe("c", eventlog.SeekPosition.BEGINNING, follow=False) as stream:
                assert [e.event for e in stream] == [1]
        """,
        "import workers; workers.Backoff, workers.PoolFailed; import eventlog.errors",
        "import workers.child, workers.worker, eventlog.local.client.member",
    ],
    ids=[
        "package",
        "names",
        "blocking",
        "storage",
        "wire",
        "memory",
        "reading",
        "workers",
        "child",
    ],
)
def test_what_runs_in_a_worker_loads_no_event_loop(program: str, tmp_path: Path) -> None:
    loaded = loaded_after(program, tmp_path)
    assert "eventlog" in loaded
    assert not loaded & EXPENSIVE


@pytest.mark.real_starts
def test_the_memory_engine_loads_nothing_of_others(tmp_path: Path) -> None:
    """It is what a test of a program needs, and the proof that the interface needs no engine."""
    loaded = loaded_after(
        "import eventlog.memory.log, eventlog.memory.blocking_log, eventlog.api.over_async",
        tmp_path,
    )
    others = ("eventlog.local", "eventlog.tools", "eventlog.cli", "eventlog.testing")
    assert not {one for one in loaded if one.startswith(others)}


# --- what is documented ----------------------------------------------------------------------


def is_public(name: str) -> bool:
    return not name.startswith("_")


def documented_things(module: Any) -> Iterator[tuple[str, Any]]:
    """The module's own public functions and classes, and the public methods of those."""
    for name, thing in vars(module).items():
        is_own = getattr(thing, "__module__", None) == module.__name__
        if not is_public(name) or not is_own:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for part, member in vars(thing).items():
                if (
                    is_public(part) and isinstance(member, property | staticmethod | classmethod)
                ) or (is_public(part) and inspect.isfunction(member)):
                    yield f"{name}.{part}", getattr(thing, part)


def undocumented(name: str) -> list[str]:
    """The public names of a module that have no docstring; `module` if it has none itself."""
    module = importlib.import_module("eventlog" if name == "__init__" else f"eventlog.{name}")
    things = [("module", module), *documented_things(module)]
    missing = [one for one, thing in things if not inspect.getdoc(thing)]
    if part_of(name) in ("local", "memory", "jetstream") or name.startswith(
        ("api.over_async", "remote.modelled")
    ):
        # Methods are documented once, in the interface.
        missing = [one for one in missing if "." not in one]
    return missing


def test_everything_public_is_documented() -> None:
    for name in MODULES.keys() - {"__main__"}:
        assert undocumented(name) == [], name


def test_every_public_name_is_there_and_documented() -> None:
    for name in eventlog.__all__:
        thing = getattr(eventlog, name)
        if name not in ("Durability", "GroupOrdering", "OnFull"):  # plain literals
            assert inspect.getdoc(thing), name
    assert len(set(eventlog.__all__)) == len(eventlog.__all__)


def test_the_help_of_the_package_fits_on_three_screens_and_has_every_name() -> None:
    """In an interpreter of its own: names that were used already are in no module's help."""
    program = "import eventlog, pydoc; print(pydoc.plain(pydoc.render_doc(eventlog)))"
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(shown.stdout.rstrip().splitlines()) <= 3 * SCREEN_LINES
    words = set(re.findall(r"\w+", eventlog.__doc__ or ""))
    assert set(eventlog.__all__) <= words


@pytest.mark.parametrize(
    "package", [eventlog, eventlog.blocking, workers], ids=lambda p: p.__name__
)
def test_completion_offers_every_public_name(package: ModuleType) -> None:
    completer = rlcompleter.Completer({"package": package})
    offered = {completer.complete("package.", place) for place in range(len(dir(package)))}
    names = {str(one).removeprefix("package.").rstrip("()") for one in offered}
    assert set(package.__all__) <= names


def test_every_error_is_exported_and_derives_from_one() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, eventlog.EventLogError)
        assert getattr(eventlog, name) is kind


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = eventlog.nonsense


def test_no_module_is_too_long() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}


def test_the_list_of_a_packages_modules_is_right() -> None:
    for package in PACKAGES - {"__init__", "local"}:
        doc = importlib.import_module(f"eventlog.{package}").__doc__ or ""
        listed = re.findall(r"^`(\w+)` ", doc, re.MULTILINE)
        depth = package.count(".") + 1
        there = {name.split(".")[depth] for name in MODULES if name.startswith(f"{package}.")}
        assert sorted(listed) == sorted(there), package
