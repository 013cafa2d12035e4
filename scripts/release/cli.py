"""The steps: build, look into what was built, and try it on each Python."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Final

from release.contents import problems_of_metadata, problems_of_sdist, problems_of_wheel
from release.pythons import VERSIONS, find_python
from release.tryout import (
    OF_TABLES,
    ROOT,
    Environment,
    Failed,
    smoke,
    smoke_of_tables,
)

DIST: Final = ROOT / "build" / "dist"


def main() -> int:
    """Check; the exit code."""
    options = _parser().parse_args()
    try:
        wheel = _build()
        _try(wheel, options.python, options.suite)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/release-check",
        description="Build wheel and sdist, look into them, and try the wheel in a new environment"
        " on every Python from 3.11 on that is there.",
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="3.N",
        choices=VERSIONS,
        help="on this one only, which has to be there; may be given several times",
    )
    parser.add_argument(
        "--suite",
        nargs=argparse.REMAINDER,
        help="run the tests on each, too; what follows goes to pytest",
    )
    return parser


def _build() -> Path:
    """The wheel, after a look into it and the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    _hatch(ROOT, DIST)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    tracked = set(_output("git", "ls-files").splitlines())
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = opened.read(metadata).decode()
        _pass(wheel, chain(problems_of_wheel(names, tracked), problems_of_metadata(text)))
    with tempfile.TemporaryDirectory(prefix="eventlog-release-") as folder:
        with tarfile.open(sdist) as opened_sdist:
            inside = [name.partition("/")[2] for name in opened_sdist.getnames()]
            opened_sdist.extractall(folder, filter="data")
        _hatch(Path(folder) / sdist.name.removesuffix(".tar.gz"), Path(folder))
        with zipfile.ZipFile(Path(folder) / wheel.name) as again:
            differing = {*names} ^ {*again.namelist()}
            differs = (f"its wheel differs in {name}" for name in differing)
            _pass(sdist, chain(problems_of_sdist(inside, tracked), differs))
    return wheel


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def _hatch(source: Path, target: Path) -> None:
    """By the backend of this environment, which is the one that is locked."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"the build has failed:\n{done.stderr}")


def _pass(file: Path, problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        raise Failed("\n  ".join([f"{file.name} is not as it should be:", *found]))
    print(f"{file.name}: as it should be", flush=True)


def _try(wheel: Path, asked: list[str] | None, suite: list[str] | None) -> None:
    """On each version that is asked for, or on each that is there."""
    tried = 0
    for version in asked or VERSIONS:
        if (python := find_python(version)) is None:
            if asked:
                raise Failed(f"there is no Python {version} on PATH, nor from pyenv")
            print(f"Python {version}: not here", flush=True)
            continue
        started = monotonic()
        with tempfile.TemporaryDirectory(prefix="eventlog-release-") as folder:
            environment = Environment(Path(folder) / "venv", python)
            environment.add("requirements.lock")
            environment.install(wheel)
            smoke(environment)
            if environment.add_wheels("requirements-dev.lock", OF_TABLES):
                smoke_of_tables(environment)
            else:
                print(f"Python {version}: no wheels for events as tables", flush=True)
            if suite is not None:
                environment.add("requirements-dev.lock")
                environment.suite(suite)
        tried += 1
        print(f"Python {version}: passed in {monotonic() - started:.0f} s ({python})", flush=True)
    if not tried:
        raise Failed("there is no Python of these versions here")
