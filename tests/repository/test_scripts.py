"""What the scripts promise about setting up, with a stand-in for uv: no network, no installation.

The stand-in writes down what it is asked for. (That a real installation works is shown by these
tests running at all: `./scripts/test` makes one.)
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [
    "bash",
    "cat",
    "cp",
    "cut",
    "dirname",
    "env",
    "find",
    "flock",
    "grep",
    "mkdir",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sha256sum",
    "sort",
    "tail",
    "uname",
]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")
PACKAGE_MANAGERS = {
    "apt-get": "apt-get install -y python3.12-venv",
    "dnf": "dnf install -y python3.12-libs",
    "apk": "apk add python3",
    "pacman": "pacman -S --needed python",
    "zypper": "zypper install -y python312-base",
}

# Installing waits at a gate (a FIFO) or fails if the test puts one of them into the checkout.
FAKE_UV = """#!/usr/bin/env bash
set -eu
home=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
echo "$*" >>"$home/asked"
case $1 in
venv)
    venv=${*: -1}
    mkdir -p "$venv/bin"
    cp "$home/fakes/python" "$home/fakes/eventlog" "$venv/bin/"
    ;;
pip)
    [[ ! -p $home/gate ]] || read -r _ <"$home/gate"
    [[ ! -e $home/broken ]] || exit 1
    ;;
esac
"""
FAKE_EVENTLOG = """#!/usr/bin/env bash
echo "$$ in $PWD:" "${@@Q}"
"""
FAKE_VENV_PYTHON = """#!/usr/bin/env bash
[[ "$1 $2" == "-m pytest" ]] || exec {python} "$@"
echo "$$ in $PWD:" "${{@@Q}}"
"""
FAKE_PYTHON = """#!/bin/sh
printf '%s\\n' {lines}
exit {code}
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout with the real scripts in a folder of its own, and all that is on PATH there."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "a checkout"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def put(self, name: str, text: str) -> Path:
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, script: str | Path, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *args],
            cwd=self.home,
            env={"PATH": str(self.home / "bin"), "HOME": str(self.home), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str | Path, *args: str, **env: str) -> Outcome:
        with self.start(script, *args, **env) as process:
            out, err = process.communicate(timeout=60)
        return Outcome(process.pid, process.returncode, out, err)

    def installed(self) -> list[str]:
        """What uv was asked for since the last call: `venv`, a lock file, or `project`."""
        asked = self.home / "asked"
        lines = asked.read_text().splitlines() if asked.exists() else []
        asked.unlink(missing_ok=True)
        return [what_was_asked(line) for line in lines]


@dataclass(frozen=True)
class Outcome:
    pid: int
    code: int
    out: str
    err: str


def what_was_asked(line: str) -> str:
    if line.startswith("venv"):
        return "venv"
    return "project" if line.endswith("--editable .") else Path(line).name


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    shutil.copytree(ROOT / "scripts", made.root / "scripts")
    for name in (*LOCKS, "pyproject.toml"):
        shutil.copy(ROOT / name, made.root)
    made.put("bin/uv", FAKE_UV)
    made.put("fakes/eventlog", FAKE_EVENTLOG)
    made.put("fakes/python", FAKE_VENV_PYTHON.format(python=shlex.quote(sys.executable)))
    (made.home / "bin/python3").symlink_to(sys.executable)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is not on PATH"
        (made.home / "bin" / tool).symlink_to(found)
    return made


def test_the_first_start_sets_up_and_the_second_does_not(checkout: Checkout) -> None:
    first = checkout.run("demo")
    assert first.code == 0, first.err
    assert checkout.installed() == ["venv", "requirements.lock", "project"]
    assert "Making .venv" in first.err

    second = checkout.run("demo")
    assert (second.code, second.err) == (0, "")
    assert checkout.installed() == []


def test_the_program_takes_the_place_of_the_script(checkout: Checkout) -> None:
    """So Ctrl-C and the exit code are its own; the folder and the arguments are the caller's."""
    checkout.run("demo")
    outcome = checkout.run("demo", "two words", "*")
    assert outcome.out == f"{outcome.pid} in {checkout.home}: 'demo' 'two words' '*'\n"

    checkout.put("a checkout/.venv/bin/eventlog", "#!/bin/sh\nkill -INT $$\nexit 3\n")
    assert checkout.run("demo").code == -signal.SIGINT
    checkout.put("a checkout/.venv/bin/eventlog", "#!/bin/sh\nexit 3\n")
    assert checkout.run("demo").code == 3


def test_what_tests_need_is_added_to_the_demo_and_not_taken_away_again(checkout: Checkout) -> None:
    checkout.run("demo")
    checkout.installed()
    assert checkout.run("test").code == 0
    assert checkout.installed() == ["requirements-dev.lock", "project"]
    assert checkout.run("demo").code == 0
    assert checkout.run("test").code == 0
    assert checkout.installed() == []

    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    checkout.run("demo")
    assert checkout.installed() == ["venv", "requirements-dev.lock", "project"]


def test_tests_run_in_the_checkout_and_slow_ones_when_asked_for(checkout: Checkout) -> None:
    plain = checkout.run("test", "-k", "a or b")
    assert plain.out == f"{plain.pid} in {checkout.root}: '-m' 'pytest' '-k' 'a or b'\n"
    slow = checkout.run("test", "--slow", "-x")
    assert slow.out.endswith(": '-m' 'pytest' '-m' 'slow or not slow' '-x'\n")


def test_a_changed_project_file_installs_only_the_project(checkout: Checkout) -> None:
    checkout.run("demo")
    checkout.installed()
    with (checkout.root / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    checkout.run("demo")
    assert checkout.installed() == ["project"]


def test_a_checkout_that_was_moved_is_set_up_anew(checkout: Checkout) -> None:
    """The programs in a venv carry its path; those of a moved one would run what is elsewhere."""
    checkout.run("demo")
    checkout.installed()
    moved = checkout.home / "moved"
    checkout.root.rename(moved)
    assert checkout.run(moved / "scripts" / "demo").code == 0
    assert checkout.installed() == ["venv", "requirements.lock", "project"]


def test_a_link_to_the_checkout_or_to_a_script_is_the_same_checkout(checkout: Checkout) -> None:
    checkout.run("demo")
    checkout.installed()
    link = checkout.home / "link"
    link.symlink_to(checkout.root)
    script = checkout.home / "my-demo"
    script.symlink_to(link / "scripts" / "demo")
    for path in (link / "scripts" / "demo", script):
        assert checkout.run(path).code == 0
    assert checkout.installed() == []


def test_a_failed_installation_fails_the_start_and_is_done_again(checkout: Checkout) -> None:
    broken = checkout.put("broken", "")
    failed = checkout.run("demo")
    assert (failed.code, failed.out) == (1, "")
    checkout.installed()

    broken.unlink()
    assert checkout.run("demo").code == 0
    assert checkout.installed() == ["venv", "requirements.lock", "project"]


def test_a_killed_installation_is_done_again_from_scratch(checkout: Checkout) -> None:
    gate = checkout.home / "gate"
    os.mkfifo(gate)
    with checkout.start("demo") as process:
        with gate.open("w"):  # opens once the installer waits there
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    gate.unlink()
    (checkout.venv / "rest of it").touch()
    checkout.installed()

    assert checkout.run("demo").code == 0
    assert checkout.installed() == ["venv", "requirements.lock", "project"]
    assert not (checkout.venv / "rest of it").exists()


def test_of_two_starts_at_once_one_installs_and_both_run(checkout: Checkout) -> None:
    gate = checkout.home / "gate"
    os.mkfifo(gate)
    with checkout.start("demo") as first:
        with gate.open("w") as opened:
            second = checkout.start("demo")
            assert second.stderr
            assert "waiting" in second.stderr.readline()
            gate.unlink()
            opened.write("go on\n")
        with second:
            assert second.communicate(timeout=60)[0].endswith(": 'demo'\n")
        assert first.communicate(timeout=60)[0].endswith(": 'demo'\n")
    assert checkout.installed() == ["venv", "requirements.lock", "project"]


def test_the_running_program_does_not_keep_others_from_setting_up(checkout: Checkout) -> None:
    """The lock's descriptor is not handed on: a detached writer would hold it for hours."""
    checkout.put("fakes/eventlog", "#!/usr/bin/env bash\nreadlink /proc/self/fd/*\n")
    opened = checkout.run("demo").out
    assert "pipe:" in opened
    assert ".venv.lock" not in opened


def test_an_environment_that_was_not_made_here_is_left_alone(checkout: Checkout) -> None:
    theirs = checkout.venv / "bin" / "python"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    outcome = checkout.run("demo")
    assert outcome.code == 1
    assert "was not made by these scripts" in outcome.err
    assert theirs.exists()


def fake_python(*lines: str, code: int = 0) -> str:
    return FAKE_PYTHON.format(lines=" ".join(f"'{line}'" for line in lines), code=code)


@pytest.mark.parametrize("manager", PACKAGE_MANAGERS)
def test_a_python_without_venv_names_the_one_command(checkout: Checkout, manager: str) -> None:
    (checkout.home / "bin/uv").unlink()
    (checkout.home / "bin/python3").unlink()
    checkout.put("bin/python3", fake_python("3.12.4", "/usr/bin/python3", "no-venv"))
    checkout.put(f"bin/{manager}", "#!/bin/sh\nexit 1\n")
    outcome = checkout.run("demo")
    assert (outcome.code, outcome.out) == (1, "")
    assert PACKAGE_MANAGERS[manager] in outcome.err
    assert ("sudo" in outcome.err) == (os.geteuid() != 0)
    assert not checkout.venv.exists()


def test_a_python_that_can_make_a_venv_is_preferred(checkout: Checkout) -> None:
    (checkout.home / "bin/uv").unlink()
    checkout.put("bin/python3.99", fake_python("3.99.0", "/usr/bin/python3.99", "no-venv"))
    (checkout.home / "bin/python3").unlink()
    fake = checkout.home / "bin/python3"
    checkout.put("bin/python3", fake_python("3.11.1", str(fake), "venv"))
    assert "Making .venv with Python 3.11.1" in checkout.run("demo").err


def test_without_a_new_enough_python_it_says_what_it_found(checkout: Checkout) -> None:
    (checkout.home / "bin/python3").unlink()
    old = checkout.run("demo")
    assert old.code == 1
    assert "Python 3.11 or newer is needed, and none is on PATH." in old.err

    checkout.put("bin/python3", fake_python("python3 is 3.9", code=1))
    none = checkout.run("demo")
    assert none.code == 1
    assert "(python3 is 3.9)" in none.err


def test_a_python_can_be_named(checkout: Checkout) -> None:
    wrong = checkout.run("demo", EVENTLOG_PYTHON="/no/such/python")
    assert wrong.code == 1
    assert "EVENTLOG_PYTHON is /no/such/python" in wrong.err

    (checkout.home / "bin/python3").rename(checkout.home / "mine")
    named = str(checkout.home / "mine")
    assert checkout.run("demo", EVENTLOG_PYTHON=named).code == 0


def pins(name: str) -> dict[str, str]:
    """Each requirement of a lock file, `name==version ; marker`, with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    split = (re.split(r"\s+(?=--hash)", line, maxsplit=1) for line in lines)
    return {requirement.strip(): hashes for requirement, hashes in split}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_pins_everything_with_hashes_and_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host|file:", text)
    assert "scripts/lock" in text.splitlines()[1]
    assert pins(name)
    for requirement, hashes in pins(name).items():
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; .+)?", requirement)
        assert re.fullmatch(r"(--hash=sha256:[0-9a-f]{64}\s*)+", hashes)


def test_each_lock_contains_the_one_before_version_for_version() -> None:
    demo, dev, bench = ({p.split(" ;")[0] for p in pins(name)} for name in LOCKS)
    assert demo < dev < bench


def test_what_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {
        "requirements.lock": project["project"]["dependencies"]
        + project["build-system"]["requires"],
        "requirements-dev.lock": project["project"]["optional-dependencies"]["dev"],
        "requirements-bench.lock": [
            one for extra in project["project"]["optional-dependencies"].values() for one in extra
        ],
    }
    for lock, requirements in asked.items():
        names = {pin.split("==")[0] for pin in pins(lock)}
        assert {re.split(r"[<>=!~\[; ]", one)[0] for one in requirements} <= names


def _commit(folder: Path, times: int) -> None:
    """Make a repository with so many commits, whatever is set for git here."""
    nowhere = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    make = ["commit", "--quiet", "--allow-empty", "--message", "Change"]
    for words in (["init", "--quiet"], *[make] * times):
        subprocess.run([*git, *words], cwd=folder, env=os.environ | nowhere, check=True)


def test_all_parts_of_ci_run_and_what_failed_is_said_again(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    for name, text in {
        "test": 'echo "FAILED tests/x.py::y - $CI"; [[ "$*" == "-m slow --share 3/20" ]]',
        "check": "echo All checks passed.",
        "docs": "true",
        "release-check": "true",
    }.items():
        script = tmp_path / "scripts" / name
        script.write_text(f"#!/usr/bin/env bash\n{text}\n")
        script.chmod(0o755)
    _commit(tmp_path, 3)
    done = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    said = done.stdout.partition("===== all parts\n")[2]
    last = re.sub(r"\d+ s$", "0 s", said, flags=re.MULTILINE)
    assert last.splitlines() == [
        "test FAILED in 0 s",
        "  FAILED tests/x.py::y - 1",
        "check passed in 0 s",
        "docs passed in 0 s",
        "release-check passed in 0 s",
        "test -m slow --share 3/20 passed in 0 s",
    ]
