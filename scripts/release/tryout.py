"""The wheel in an environment of its own: programs, commands, what it says of extras, the suite."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LIMIT_S: Final = 300.0
"""For a command of the smoke test; a hang fails it."""
IMPORTS: Final = """
import sys
import eventlog, eventlog.blocking, eventlog.aggregates, eventlog.testing, workers, workers.blocking
for module in (eventlog, workers):
    assert module.__file__.startswith(sys.prefix), module.__file__
    for name in module.__all__:
        getattr(module, name)
"""
OPEN: Final = "import eventlog.blocking; eventlog.blocking.open({!r})"
ON_A_TERMINAL: Final = """
import os, pty, sys
command = os.path.join(os.path.dirname(sys.executable), "eventlog")
sys.exit(os.waitstatus_to_exitcode(pty.spawn([command, "top", "orders"])))
"""
"""`eventlog top` draws its screen on a terminal only."""
OF_TABLES: Final = {"duckdb", "numpy", "pandas", "pyarrow", "python-dateutil", "tzdata"}
"""What the extras pandas and query bring."""
TABLES: Final = """
import pandas
import eventlog.blocking

with eventlog.blocking.open("sales") as log:
    log.append_many([{"city": "Oslo", "total": 12.5}, {"city": "Rome", "total": 80.0}])
    assert log.to_pandas()["total"].sum() == 92.5
    assert pandas.DataFrame.from_arrow(log.read(1))["city"].tolist() == ["Oslo", "Rome"]
"""


class Failed(Exception):
    """A check has failed, as its text says."""


class Environment:
    """A new environment, with nothing in it but what is added."""

    def __init__(self, place: Path, python: str) -> None:
        self._bin = place / "bin"
        self._variables = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }
        _must([python, "-I", "-m", "venv", str(place)])

    def add(self, lock: str) -> None:
        """Install the packages of a lock file."""
        self.pip("install", "--require-hashes", "--no-deps", "-r", str(ROOT / lock))

    def add_wheels(self, lock: str, names: Set[str]) -> bool:
        """Install those packages of a lock file; false if this Python has no wheels of them."""
        pins = re.split(r"^(?=\w)", (ROOT / lock).read_text(), flags=re.MULTILINE)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(pin for pin in pins if pin.partition("==")[0] in names)
            file.flush()
            wheels = ("--only-binary", ":all:", "--require-hashes", "--no-deps")
            try:
                self.pip("install", *wheels, "-r", file.name)
            except Failed as error:
                if "No matching distribution found" not in str(error):
                    raise
                return False
        self.pip("check")
        return True

    def pip(self, *arguments: str) -> None:
        """Run pip in there."""
        pip = [str(self._bin / "python"), "-I", "-m", "pip", "--quiet"]
        _must([*pip, "--disable-pip-version-check", "--no-input", *arguments])

    def install(self, wheel: Path) -> None:
        """Add the wheel, and check that what it asks for is there."""
        self.pip("install", "--no-deps", "--force-reinstall", str(wheel))
        self.pip("check")

    def run(self, folder: Path, *words: str, code: int = 0, says: str = "") -> None:
        """Run a command of the environment; it has to end with that code, and say that."""
        command = [str(self._bin / words[0]), *words[1:]]
        done = subprocess.run(
            command,
            cwd=folder,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        said = done.stdout + done.stderr
        if done.returncode != code or says not in said:
            shown = " ".join(words)
            wanted = f"it has to end with {code} and say {says!r}"
            raise Failed(f"{shown!r} ended with {done.returncode}; {wanted}:\n{said}")

    def suite(self, arguments: Sequence[str]) -> None:
        """Run the tests of the checkout."""
        command = [str(self._bin / "python"), "-m", "pytest", *arguments]
        if subprocess.run(command, cwd=ROOT, env=self._variables, check=False).returncode:
            raise Failed("tests have failed")


def _must(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )


def first_program() -> str:
    """That of the README."""
    _, _, after = (ROOT / "README.md").read_text().partition("<!-- run: producer -->\n```python\n")
    return after.partition("```")[0]


def smoke(environment: Environment) -> None:
    """What a user does first, in an empty folder and without any extra."""
    with tempfile.TemporaryDirectory(prefix="eventlog-release-") as name:
        folder = Path(name)
        environment.run(folder, "python", "-I", "-W", "error", "-c", IMPORTS)
        (folder / "first.py").write_text(first_program())
        for number in (1, 2):
            environment.run(folder, "python", "first.py", says=f"{number} {{'order': 7")
        for command in ("eventlog", "workers"):
            environment.run(folder, command, "--version", says=f"{command} ")
            environment.run(folder, command, "--help", says="Commands")
        environment.run(folder, "eventlog", "tail", "orders", says="12.5")
        without_extras(environment, folder)
        environment.run(folder, "eventlog", "stop", "orders")


def smoke_of_tables(environment: Environment) -> None:
    """The first steps of who looks at events as tables, with the extras for it."""
    with tempfile.TemporaryDirectory(prefix="eventlog-release-") as name:
        folder = Path(name)
        environment.run(folder, "python", "-c", TABLES)
        select = "select sum(total) as total from events"
        environment.run(folder, "eventlog", "query", "sales", select, "--csv", says="92.5")
        environment.run(folder, "eventlog", "stop", "sales")


def without_extras(environment: Environment, folder: Path) -> None:
    """Whatever needs an extra names it, and how to install it."""

    def asks_for(extra: str, *words: str, code: int) -> None:
        environment.run(folder, *words, code=code, says=f"pip install 'eventlog[{extra}]'")

    asks_for("ui", "eventlog", "ui", "orders", code=2)
    asks_for("metrics", "eventlog", "serve", "other", "--metrics", ":0", code=2)
    asks_for("top", "python", "-c", ON_A_TERMINAL, code=2)
    asks_for("redis", "python", "-c", OPEN.format("redis://localhost/0/orders"), code=1)
    asks_for("jetstream", "python", "-c", OPEN.format("nats://localhost/orders"), code=1)
    asks_for("kafka", "python", "-c", OPEN.format("kafka://localhost/orders"), code=1)
    asks_for("eventsourcing", "python", "-c", "import eventlog.eventsourcing", code=1)
    asks_for("opentelemetry", "python", "-c", "import eventlog.tracing", code=1)
    opened = "import eventlog.blocking; eventlog.blocking.open('orders')"
    asks_for("pandas", "python", "-c", f"{opened}.to_pandas()", code=1)
    asks_for("polars", "python", "-c", f"{opened}.to_polars()", code=1)
