"""The main job and the README's programs on every engine, unchanged but for the address."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.conformance.backends import BACKENDS, Backend
from tests.repository.test_readme import blocks, run, stop_writers

ON_SEVERAL_PROCESSES = [one for one in BACKENDS if "processes" not in one.lacks]
FILES = 60


def _engines() -> list[Any]:
    """Those that several processes share; of two servers that speak alike, one is for the gate."""
    slow = [pytest.mark.slow]
    return [
        pytest.param(one, id=one.name, marks=slow if "trio" in one.slow else [])
        for one in ON_SEVERAL_PROCESSES
    ]


engines = pytest.mark.parametrize("engine", _engines())
engines_with_groups = pytest.mark.parametrize(
    "engine", [one for one in _engines() if "members" not in one.values[0].lacks]
)


def program_at(name: str, engine: Backend, folder: Path) -> CompletedProcess[str]:
    """Run a program of the README with the engine's addresses in place of its directories."""
    text, count = re.subn(
        r'(eventlog\.open\()"(\w+)"',
        lambda match: f'{match[1]}"{engine.path_of(folder, match[2])}"',
        blocks("python")[name],
    )
    assert count
    (folder / "program.py").write_text(text)
    return run([sys.executable, "-W", "error", "program.py"], folder)


@engines
def test_the_first_program_of_the_readme_runs_on_every_engine(
    engine: Backend, tmp_path: Path
) -> None:
    try:
        for number in (1, 2):
            done = program_at("producer", engine, tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"{number} {{'order': 7, 'total': 12.5}}\n"
    finally:
        stop_writers(tmp_path)


@pytest.mark.slow
@engines_with_groups
def test_the_pool_program_of_the_readme_runs_on_every_engine(
    engine: Backend, tmp_path: Path
) -> None:
    try:
        done = program_at("pool", engine, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "handled=1000, failed=0, retried=0, in_flight=0, lag=0" in done.stdout
    finally:
        stop_writers(tmp_path)


@pytest.mark.slow
@engines_with_groups
def test_workers_run_from_the_command_line_on_every_engine(engine: Backend, tmp_path: Path) -> None:
    address = engine.path_of(tmp_path, "orders")
    try:
        assert run(["eventlog", "append", address, "1", "2", "3"], tmp_path).returncode == 0
        options = ["--group", "g", "--handler", "builtins:hash", "--output", address]
        command = ["workers", "run", address, *options, "-n", "1", "--until-drained", "--json"]
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert (last["handled"], last["failed"], last["lag"]) == (3, 0, 0)
        assert run(["eventlog", "tail", address, "-n", "3"], tmp_path).stdout.count("\n") == 3
    finally:
        stop_writers(tmp_path)


def demo(folder: Path, *options: str) -> CompletedProcess[str]:
    """`eventlog demo` on a few files of its own."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for number in range(FILES):
        (files / f"m{number}.py").write_text("".join(f"x{n} = {n}\n" for n in range(200)))
    return run(["eventlog", "demo", str(files), "--consumers", "1", *options], folder)


@pytest.mark.slow
@engines_with_groups
def test_the_demonstration_runs_on_every_engine(engine: Backend, tmp_path: Path) -> None:
    address = engine.path_of(tmp_path, "demo")
    try:
        done = demo(tmp_path, "--on", address, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["right"] is True
        assert [one["position"] for one in report["consumers"]] == [FILES]
        assert report["pool"]["position"] == FILES
        again = demo(tmp_path, "--on", address)
        assert again.returncode != 0
        assert f"has {FILES} events already" in " ".join(again.stderr.split())
    finally:
        stop_writers(tmp_path)


def test_the_demonstration_refuses_the_memory_of_its_own_process(tmp_path: Path) -> None:
    done = demo(tmp_path, "--on", "memory:demo")
    assert done.returncode != 0
    assert "would live in the memory of this command" in " ".join(done.stderr.split())
