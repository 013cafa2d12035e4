"""Every code block of the README and its chapters is run, in a folder of its own, as readers do."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eventlog import blocking
from eventlog.demo.main_job import stop_process

ROOT = Path(__file__).resolve().parents[2]
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
README_LINES_MAX = 200


def blocks(kind: str) -> dict[str, str]:
    return {block["name"] or "": block["text"] for block in BLOCKS if block["kind"] == kind}


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """In `folder`, with the commands of this Python's environment first on the path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
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


@pytest.mark.parametrize("name", sorted(blocks("python").keys() - {"producer"}))
def test_the_programs_of_the_readme_run(name: str, tmp_path: Path) -> None:
    said_twice(name, tmp_path)


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


def test_the_commands_that_make_tables_of_a_log_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["data"]], tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "sales.csv").read_text().endswith("2,2,80\n")
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_ask_a_log_in_sql_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["query"]], tmp_path)
        assert done.returncode == 0, done.stderr
        assert '"city": "Rome", "total": 80.0' in done.stdout
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_look_into_a_log_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["tail"]], tmp_path)
        assert done.returncode == 0, done.stderr
        of_key, chosen = '1\t{"total": 120}\n2\t{"total": 80}\n', '1\t{"total": 120}\n'
        appended = "1..2\n3\n"
        assert done.stdout.startswith(appended + of_key + chosen)
        assert " us-1 300\n" in done.stdout
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_keep_and_move_a_log_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["tools"]], tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "orders.jsonl").read_text().count("\n") == 3
    finally:
        stop_writers(tmp_path)


def test_the_commands_that_operate_a_log_work(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["operate"]], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "made meters: durability disk, max-bytes 10,737,418,240, max-age 30d" in done.stdout
        assert "nothing to delete" in done.stdout
        assert done.stdout.splitlines()[-1] == "deleted meters"
    finally:
        stop_writers(tmp_path)


def test_a_backup_is_restored_by_copying(tmp_path: Path) -> None:
    try:
        done = run(["bash", "-euo", "pipefail", "-c", blocks("sh")["backup"]], tmp_path)
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
