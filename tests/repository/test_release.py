"""What `scripts/release-check` looks for in wheel and sdist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from release.contents import SOURCE, VENDORED, problems_of_metadata, problems_of_sdist
from release.contents import problems_of_wheel as problems
from release.pythons import find_python
from release.tryout import first_program

ROOT: Final = Path(__file__).resolve().parents[2]
(WORK, LICENCE), *_ = VENDORED.items()
PACKAGES: Final = {"eventlog/__init__.py", "eventlog/py.typed", "workers/py.typed", WORK, LICENCE}
TRACKED: Final = PACKAGES | {"tests/conftest.py", "README.md"}
WHEEL: Final = PACKAGES | {"eventlog-1.dist-info/METADATA", "eventlog-1.dist-info/licenses/LICENSE"}
METADATA: Final = """\
Metadata-Version: 2.4
Name: eventlog
Version: 1.0
License-Expression: Apache-2.0
Requires-Python: >=3.11
Description-Content-Type: text/markdown
Requires-Dist: trio

# eventlog
"""


def test_a_wheel_has_the_packages_and_nothing_else() -> None:
    assert list(problems(WHEEL, TRACKED)) == []


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_file_that_a_wheel_lacks_is_named(name: str) -> None:
    assert f"{name} is missing" in list(problems(WHEEL - {name}, TRACKED))


def test_a_licence_that_a_wheel_lacks_is_named_with_whose_it_is() -> None:
    found = list(problems(WHEEL - {LICENCE}, TRACKED))
    assert f"{LICENCE} is missing, the licence of {WORK}" in found
    own = "eventlog-1.dist-info/licenses/LICENSE"
    assert list(problems(WHEEL - {own}, TRACKED)) == ["its own licence is missing"]


@pytest.mark.parametrize("name", ["tests/conftest.py", "eventlog/left_behind.py", "docs/log.md"])
def test_what_does_not_belong_into_a_wheel_is_named(name: str) -> None:
    assert list(problems(WHEEL | {name}, TRACKED)) == [f"{name} does not belong there"]


def test_an_sdist_has_what_work_on_the_project_needs_and_nothing_that_tools_leave() -> None:
    sdist = TRACKED | {*SOURCE}
    assert list(problems_of_sdist(sdist, TRACKED)) == []
    assert list(problems_of_sdist(sdist - {"LICENSE"}, TRACKED)) == ["LICENSE is missing"]
    for name in (".venv/bin/python", "tests/__pycache__/a.pyc", ".mypy_cache/a", "build/dist"):
        assert list(problems_of_sdist(sdist | {name}, TRACKED)) == [f"{name} does not belong there"]


def test_metadata_that_an_index_would_refuse_is_told() -> None:
    assert list(problems_of_metadata(METADATA)) == []
    broken = METADATA.replace("Version: 1.0", "Version: one")
    assert "one" in " ".join(problems_of_metadata(broken))
    address = METADATA.replace("trio", "trio @ https://example.org/trio.whl")
    assert len(list(problems_of_metadata(address))) == 1
    assert list(problems_of_metadata(METADATA.replace("text/markdown", "text/plain"))) == [
        "the README is not its description"
    ]


def test_a_python_is_found_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = "{}.{}".format(*sys.version_info)
    (tmp_path / f"python{version}").symlink_to(sys.executable)
    (tmp_path / "python3.2").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_python(version) == str(tmp_path / f"python{version}")
    assert find_python("3.2") is None  # another one is behind that name


def test_the_first_program_of_the_readme_is_tried() -> None:
    assert "eventlog.open" in first_program()


def test_a_python_that_is_not_there_ends_the_check() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "release"), "--python", "2.7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "3.11" in done.stderr
