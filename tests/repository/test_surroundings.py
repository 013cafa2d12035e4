"""Every test has the same surroundings, however the tests are started."""

from __future__ import annotations

import json
import locale
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shares import is_in

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import json, locale, os, resource, signal, sys, time
ignored = [int(n) for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
mask = os.umask(0o077)
print(json.dumps({
    "ignored": sorted(ignored),
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "umask": mask,
    "encodings": [locale.getencoding().lower(), sys.getfilesystemencoding()],
    "open": [os.path.exists(f"/proc/self/fd/{n}") for n in range(3)],
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "zone": time.timezone,
}))
"""
USUAL = {
    "ignored": sorted({int(signal.SIGPIPE), int(signal.SIGXFSZ)}),
    "blocked": [],
    "umask": 0o022,
    "encodings": ["utf-8", "utf-8"],
    "open": [True, True, True],
    "core": 0,
}


@pytest.mark.real_starts
def test_a_program_that_a_test_starts_has_the_usual_surroundings() -> None:
    zone = subprocess.run(
        [sys.executable, "-c", "import time; print(time.timezone)"],
        env={name: value for name, value in os.environ.items() if name != "TZ"},
        capture_output=True,
        check=True,
    )
    said = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=True)
    assert json.loads(said.stdout) == {**USUAL, "zone": int(zone.stdout)}


def test_the_test_itself_has_them_too() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert locale.getencoding().lower() == sys.getfilesystemencoding() == "utf-8"
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    mask = os.umask(0o022)
    assert mask == 0o022


ODD = {
    "a script's background": "trap '' INT QUIT",
    "nohup": "trap '' HUP",
    "a supervisor that ignores": "trap '' CHLD TERM USR1",
    "no descriptors": "exec <&- >&- 2>&-",
    "a locale without UTF-8": "export LC_ALL=xx_XX.ISO-8859-1 LANG=C PYTHONUTF8=0",
    "the C locale": "export LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0",
    "a strict umask": "umask 0277",
    "a wish for colours": "export FORCE_COLOR=1 COLUMNS=20 TZ=Pacific/Kiritimati",
    "few descriptors, small files": "ulimit -S -n 128 -f 4096; ulimit -S -c unlimited || true",
    "settings of Python": "export PYTHONOPTIMIZE=2 PYTHONWARNINGS=error PYTHONPATH=/nowhere",
}
"""Each way to start the tests, as a shell prepares it."""


def start_tests(tmp_path: Path, preparation: str, *prefix: str) -> None:
    """Run the two tests above as `./scripts/test` would, after `preparation`."""
    report = tmp_path / "report.xml"
    chosen = "has_the_usual_surroundings or has_them_too"
    command = ["scripts/test", "-p", "no:xdist", "-o", "addopts=", "-k", chosen, "-q"]
    command += ["--junit-xml", str(report), "tests/repository/test_surroundings.py"]
    script = f'{preparation}\nexec {" ".join(prefix)} "$@"'
    outcome = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,
        timeout=110,
    )
    text = report.read_text() if report.exists() else ""
    assert outcome.returncode == 0, outcome.stdout + text
    assert 'tests="2"' in text


def test_they_are_the_same_however_the_tests_are_started(tmp_path: Path) -> None:
    """Four tests failed in the background of a script: their programs ignored SIGINT from birth."""
    start_tests(tmp_path, "\n".join(ODD.values()))


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD)
def test_they_are_the_same_in_each_odd_place(tmp_path: Path, odd: str) -> None:
    start_tests(tmp_path, ODD[odd])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")
def test_as_the_first_process_of_a_container_dead_writers_are_reaped(tmp_path: Path) -> None:
    """A process whose parent ended becomes a child of process 1, which has to wait for it."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace of processes")
    orphan = tmp_path / "orphan.py"
    start_tests(tmp_path, "", *unshare)
    orphan.write_text(ORPHAN)
    said = subprocess.run(
        [*unshare, "scripts/test", "-p", "no:xdist", "-o", "addopts=", "-q", str(orphan)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert said.returncode == 0, said.stdout + said.stderr


ORPHAN = """
import os, subprocess, time

def test_an_orphan_goes():
    said = subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], stdout=subprocess.PIPE, check=True)
    until = time.monotonic() + 30
    while os.path.exists(f"/proc/{int(said.stdout)}"):
        assert time.monotonic() < until, "nobody waited for it"
        time.sleep(0.01)
"""


def test_ten_shares_have_every_test_between_them_each_once() -> None:
    names = [f"tests/test_of_{number}.py::test_it" for number in range(1000)]
    shares = [[one for one in names if is_in(f"{first}/10", one)] for first in range(663, 673)]
    assert sorted(one for share in shares for one in share) == sorted(names)
    assert all(50 < len(share) < 150 for share in shares)
