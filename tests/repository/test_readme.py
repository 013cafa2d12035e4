"""Every code block of the README and its chapters is run, in a folder of its own, as readers do.

Those of the README start as a reader starts them. Of the chapters, which have many more, commands
and programs are forks of the nursery.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from tests.nursery import Nursery
from tests.quick_commands import quick_commands

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(sys.executable).parent
"""Where the commands are of this Python's environment."""
README = (ROOT / "README.md").read_text()
CHAPTERS = [
    ROOT / "docs" / f"{name}.md" for name in ("log", "pools", "commands", "operations", "data")
]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[a-z]+): (?P<name>[a-z-]+) -->\n)?```(?P<kind>\w+)?\n(?P<text>.*?)```",
    re.DOTALL,
)
BLOCKS = [
    match.groupdict()
    for text in (README, *(chapter.read_text() for chapter in CHAPTERS))
    for match in BLOCK.finditer(text)
]
OF_README = [match["name"] for match in BLOCK.finditer(README)]
README_LINES_MAX = 200


def blocks(kind: str) -> dict[str, str]:
    return {block["name"] or "": block["text"] for block in BLOCKS if block["kind"] == kind}


@pytest.fixture
def commands(_nursery: Nursery | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the commands, where they are forked, if this machine can."""
    if _nursery is None:
        yield INSTALLED
        return
    with quick_commands(_nursery, tmp_path_factory.mktemp("commands") / "bin") as folder:
        yield folder


def run(
    command: list[str], folder: Path, commands: Path = INSTALLED
) -> subprocess.CompletedProcess[str]:
    """In `folder`, with those commands first on the path."""
    path = os.pathsep.join((str(commands), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def stop_writers(folder: Path) -> None:
    """End the writers that the block has started, instead of letting them linger."""
    for log in folder.iterdir():
        if (log / "control").exists():
            with blocking.open(log) as opened:
                pid = opened.status().writer_pid
            assert pid is not None
            stop_process(pid)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX


def test_links_of_the_documentation_lead_somewhere() -> None:
    """Files and headings, as GitHub names them."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text())
        if not link.startswith("http") and not leads_somewhere(page, link)
    ]
    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return not anchor or anchor in anchors


def test_every_block_of_code_has_a_test() -> None:
    kinds = {block["kind"] for block in BLOCKS}
    assert kinds <= {None, "python", "sh", "ini"}
    for block in BLOCKS:
        if block["kind"] in ("python", "sh"):
            assert block["mark"], f"no mark says how to run:\n{block['text']}"
        if block["kind"] == "sh":
            assert f'blocks("sh")["{block["name"]}"]' in Path(__file__).read_text()


def said_twice(name: str, folder: Path) -> list[str]:
    """What a program prints, and prints again: the text says that it can be run twice.

    What runs on trio does so on asyncio too, the second time.
    """
    text = blocks("python")[name]
    other = text.replace("import trio", "import asyncio")
    other = other.replace("trio.run(main)", "asyncio.run(main())")
    printed = []
    try:
        for program in (text, text if "asyncio" in text else other):
            (folder / "program.py").write_text(program)
            done = run([sys.executable, "-W", "error", "program.py"], folder)
            assert done.returncode == 0, done.stderr
            assert done.stdout
            assert not done.stderr
            printed.append(done.stdout)
    finally:
        stop_writers(folder)
    return printed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.real_starts if name in OF_README else ())
        for name in sorted(blocks("python").keys() - {"producer"})
    ],
)
def test_the_programs_of_the_documentation_run(name: str, tmp_path: Path) -> None:
    said_twice(name, tmp_path)


@pytest.mark.real_starts
def test_the_first_program_prints_only_what_is_new_when_it_is_run_again(tmp_path: Path) -> None:
    printed = said_twice("producer", tmp_path)
    assert printed == [f"{number} {{'order': 7, 'total': 12.5}}\n" for number in (1, 2)]


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["cli"]], tmp_path)
        assert done.returncode == 0, done.stderr
        assert '"order": 3' in done.stdout
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_make_tables_of_a_log_work(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["data"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "sales.csv").read_text().endswith("2,2,80\n")
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_ask_a_log_in_sql_work(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["query"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        assert '"city": "Rome", "total": 80.0' in done.stdout
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_look_into_a_log_work(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["tail"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        of_key, chosen = '1\t{"total": 120}\n2\t{"total": 80}\n', '1\t{"total": 120}\n'
        appended = "1..2\n3\n"
        assert done.stdout.startswith(appended + of_key + chosen)
        assert " us-1 300\n" in done.stdout
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_run_pools_work(tmp_path: Path, commands: Path) -> None:
    try:
        with blocking.open(tmp_path / "orders") as log:
            log.append_many([{"order": number} for number in (1, 2, 3)])
        block = blocks("sh")["workers-cli"]
        done = run(["bash", "-euo", "pipefail", "-c", block], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        with blocking.open(tmp_path / "bills") as bills:
            assert sorted(one.event["billed"] for one in bills.read(1)) == [1, 2, 3]
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_keep_and_move_a_log_work(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["tools"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "orders.jsonl").read_text().count("\n") == 3
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_operate_a_log_work(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["operate"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        assert "made meters: durability disk, max-bytes 10,737,418,240, max-age 30d" in done.stdout
        assert "nothing to delete" in done.stdout
        assert done.stdout.splitlines()[-1] == "deleted meters"
    finally:
        stop_writers(tmp_path)


def test_a_backup_is_restored_by_copying(tmp_path: Path, commands: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["backup"]], tmp_path, commands)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith('1\t{"in": 5}\n2\t{"out": 3}\n')
    finally:
        stop_writers(tmp_path)


def test_the_set_up_commands_are_there_and_can_be_run() -> None:
    commands = re.findall(r"^\./(\S+)", blocks("sh")["set-up"], re.MULTILINE)
    assert commands == ["scripts/demo", "scripts/test"]
    for command in commands:
        assert os.access(ROOT / command, os.X_OK)


def test_the_systemd_unit_starts_a_command_that_exists(tmp_path: Path) -> None:
    unit = configparser.ConfigParser()
    unit.read_string(blocks("ini")[""])
    program, subcommand, _path = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "eventlog"
    done = run(["eventlog", subcommand, "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
