"""The text of others on the command line: no markup, nothing raw, never cut, UTF-8 whatever comes.

Names, keys, headers, events, paths, errors and log lines are written by others. One log has all of
them as nasty as they may be, and every command of both programs looks at it.
"""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

import eventlog.cli.app
import workers.cli.app
from eventlog import EventEnvelope, blocking
from eventlog.config import AskedOptions
from eventlog.local.client.handle import LocalHandle
from eventlog.local.wire.group_messages import FailDelivery
from eventlog.terminal.printing import clean
from eventlog.tools.transfer.json_lines import envelope_of_line
from tests.groups.world import pack_letter

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
STRICT: Final = ENVIRONMENT | {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii:strict",
}
"""A locale of ASCII, and streams that refuse everything else."""
RED: Final = "\x1b[31m"
RAW: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e\ud800-\udfff]")
FOLDER: Final = f"d[bold]{RED}"
SHOWN_FOLDER: Final = r"d[bold]\x1b[31m"
GROUP: Final = "[/red]" + "g" * 60
TWINS: Final = ["job[a]" + "x" * 90 + end for end in "12"]
"""Names that look alike if they are cut."""
EVENT: Final = f"one{RED}[bold]\r\n\x07two\x9b\u202e"
SHOWN_EVENT: Final = r"one\x1b[31m[bold]\r\n\x07two\x9b\u202e"
STYLE: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What rich itself tells a terminal."""
FAULT: Final = f"ValueError: [/red] {RED} no size"


def log_of_writer(path: Path) -> int | None:
    handle = LocalHandle(path, AskedOptions())
    handle.open()
    pid = handle.status(0).writer_pid
    handle.close()
    return pid


def end_writer(path: Path) -> None:
    """End the log's writer in order, and wait until it is gone."""
    if (pid := log_of_writer(path)) is not None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            wait([descriptor])
            os.close(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of a nasty name, which is the current one; writers of its logs are ended."""
    path = tmp_path / FOLDER
    path.mkdir()
    yield path
    for control in path.glob("log*/control"):
        end_writer(control.parent)


def make_nasty_log(path: Path) -> None:
    """A log with a nasty event, two consumers, and a group with a dead letter."""
    with blocking.open(path) as log:
        log.append(EVENT, key=f"k[/red]{RED}", headers={f"h[bold]{RED}": f"v[/]{RED}"})
        log.append({1: float("nan"), "1": RED})
        for name in TWINS:
            log.ack(name, 1)
        with log.group(GROUP, max_deliveries=1) as group, group.open_member() as member:
            lease: Any = member.lease(1)
            assert lease is not None
            ((_, envelope),) = lease
            lease.begin(envelope)
            letter = pack_letter(
                event=EVENT,
                key=f"k[/red]{RED}",
                headers={"h[bold]": f"v[/]{RED}"},
                error=FAULT,
                traceback=f"Traceback:\n  [/red]{RED}",
                log_lines=(f"INFO [bold]{RED}\rover", "b"),
            )
            what = (lease.held.lease_id, envelope.seq_no, 0, 1, letter)
            local: Any = member
            local.pipe.say_of(lease.held, FailDelivery, *what)
            member.flush()


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """A command of either program in this process: its exit code, and all that it says."""
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    before = signal.getsignal(signal.SIGTERM)

    def run_inside(program: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        main = workers.cli.app.run if program == "workers" else eventlog.cli.app.run
        with pytest.raises(SystemExit) as ended:
            main()
        signal.signal(signal.SIGTERM, before)  # `backup` has its own
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out + said.err

    return run_inside


WALK: Final[list[tuple[str, int, list[str]]]] = [
    ("eventlog tail log[/]", 0, [f"1\t{SHOWN_EVENT}", '{"$map": [[1, {"$float": "nan"}]']),
    ("eventlog tail log[/] --json", 0, [r"\u001b[31m[bold]", r"\u009b\u202e", "k[/red]"]),
    ("eventlog tail log[/] --format {key}|{headers}|{event}", 0, [r"k[/red]\x1b[31m|"]),
    ("eventlog tail log[/] --format [/red]{nope}", 2, ["'[/red]{nope}' is no good"]),
    ("eventlog tail log[/] --from [/red]", 2, ["'[/red]' is no position"]),
    ("eventlog tail log[/] -n [/red]", 2, ["valid int"]),
    ("eventlog tail log[/] --where [/red]", 2, ["  [/red]\n   ^"]),
    ("eventlog tail log[/] --where key=='[/red]\x1b[31m'=1", 2, [r"[/red]\x1b[31m"]),
    ("eventlog tail log[/] --until [/red]", 2, ["'[/red]' is no position"]),
    (f"eventlog tail log[/] --key k[/red]{RED} --format {{event}}", 0, [SHOWN_EVENT]),
    ("eventlog tail log[/] -n 9 --format {headers[h[bold]}", 2, ["is no good"]),
    ("eventlog consumers log[/]", 0, TWINS),
    (
        "eventlog consumers log[/] --max-lag 0",
        1,
        [f"consumer {name} is 1 event behind" for name in TWINS],
    ),
    ("eventlog consumers log[/] --json", 0, TWINS),
    ("eventlog top log[/] --once --interval 0.1", 0, TWINS),
    ("eventlog top log[/] --once --interval 0.1 --json", 0, TWINS),
    ("eventlog top no[/red]", 2, ["no[/red]"]),
    ("eventlog ack log[/] [/red] 1 --state-file no[/red]", 2, ["no[/red] cannot be read"]),
    ("eventlog status log[/]", 0, [f"{SHOWN_FOLDER}/log[/]"]),
    ("eventlog status log[/] --json", 0, [r"d[bold]\u001b[31m/log[/]"]),
    ("eventlog status no[/red]", 2, ["no[/red]"]),
    ("eventlog verify log[/]", 0, ["log[/]: whole"]),
    ("eventlog doctor log[/]", 0, [f"{SHOWN_FOLDER}/log[/] is on"]),
    ("eventlog export log[/]", 0, [r"one\u001b[31m[bold]"]),
    ("eventlog export log[/] --format csv --fields [/red]", 2, ["no column '[/red]'"]),
    ("eventlog query log[/] from/**/events", 0, ["k[/red]", r"one\u001b[31m[bold]"]),
    ("eventlog query log[/] from/**/events --json", 0, ["[/red]"]),
    ("eventlog query log[/] [/red]", 2, ["LINE 1: [/red]"]),
    ("eventlog export log[/] d[bold].jsonl", 0, []),
    ("eventlog export log[/] d[bold].jsonl", 2, ["d[bold].jsonl is there already"]),
    ("eventlog import log[/] d[bold].jsonl", 0, ["3..4"]),
    ("eventlog import log[/] no[/red]", 2, ["no[/red]"]),
    ("eventlog append log[/] [/red]", 1, ["argument 1 is no JSON", "[/red]"]),
    ("eventlog append log[/] 1 --header [/red]", 2, ["'[/red]' is not of the form"]),
    ("eventlog append log[/] 1 --key [/red]", 0, ["5"]),
    ("eventlog ack log[/] [/red] 99", 1, ["99"]),
    ("eventlog ack log[/] [/red] 1", 0, []),
    ("eventlog seek log[/] [/red] 99", 0, ["[/red] will wait for event 99"]),
    ("eventlog forget log[/] [/red]", 0, []),
    ("eventlog backup log[/] copy[bold]", 0, ["copy[bold]: the events 1 to 5"]),
    ("eventlog backup log[/] copy[bold]", 2, ["copy[bold]"]),
    ("eventlog mirror log[/] log2[/]", 0, ["5 events copied, up to 5"]),
    ("eventlog mirror log[/] log[/]", 2, ["log[/] is the source itself"]),
    ("eventlog compare log[/] log2[/]", 0, ["the same events"]),
    ("eventlog append log[/] 1 --key [/red]", 0, ["6"]),
    ("eventlog compare log[/] log2[/]", 1, ["event 6 in log[/], no event in log2[/]"]),
    ("eventlog create log3[/] --max-age 7d", 0, ["made log3[/]: durability disk"]),
    ("eventlog create log3[/]", 2, ["there is a log at log3[/] already"]),
    ("eventlog create log3[/] --max-bytes [/red]", 2, ["'[/red]' is no size"]),
    ("eventlog config log3[/]", 0, ["7d"]),
    ("eventlog config log3[/] --on-full [/red]", 2, ["on_full='[/red]'"]),
    ("eventlog config log3[/] --max-age none", 0, ["none"]),
    ("eventlog trim log[/] --before [/red]", 2, ["'[/red]' is no time"]),
    ("eventlog trim log[/] --before 2", 0, ["nothing to delete"]),
    ("eventlog ls .", 0, [f"{SHOWN_FOLDER}/log3[/]"]),
    ("eventlog ls . --json", 0, [r"d[bold]\u001b[31m/log3[/]"]),
    ("eventlog ls no[/red]", 2, ["no[/red] is no folder"]),
    ("eventlog stop log3[/]", 0, ["stopped the writer of log3[/]"]),
    ("eventlog stop log3[/]", 0, ["no writer serves log3[/]"]),
    ("eventlog restart log3[/]", 0, ["started a writer of log3[/]"]),
    ("eventlog delete --yes log3[/]", 2, ["log3[/] is served by a writer", "--force"]),
    ("eventlog delete --yes --force log3[/]", 0, ["deleted log3[/]"]),
    (f"eventlog {RED}[/red]", 2, [r"\x1b[31m[/red]"]),
    (f"eventlog tail --{RED}[/red]", 2, [r"\x1b[31m[/red]"]),
    ("workers groups log[/]", 0, [GROUP]),
    ("workers groups log[/] --json", 0, [GROUP]),
    ("workers groups log[/] --max-dead 0", 1, [f"group {GROUP} has 1 dead letter"]),
    ("workers replay log[/] --handler builtins:str --event 1", 0, [r"one\u001b[31m[bold]"]),
    ("workers replay log[/] --handler builtins:int --from 1 --to 1", 1, ["failed: ValueError"]),
    ("workers replay log[/] --handler [/red] --event 1", 2, ["'[/red]'"]),
    ("workers replay log[/] -g [/red] --handler builtins:str --event 1", 2, ["no group '[/red]'"]),
    (
        "workers compare log[/] --handler builtins:str --handler builtins:repr --to 1",
        1,
        ["event 1 (k[/red]", "differ"],
    ),
    ("workers dead list log[/]", 0, [GROUP, r"ValueError: [/red] \x1b[31m no size", "k[/red]"]),
    ("workers dead list log[/] --json", 0, [r"[/red] \u001b[31m", r"\u202e"]),
    ("workers dead list log[/] --since [/red]", 2, ["'[/red]' is no time"]),
    ("workers dead show log[/] 1", 0, [r"  [/red]\x1b[31m", r"  INFO [bold]\x1b[31m\rover"]),
    ("workers dead show log[/] 1 --json", 0, [r"\u009b\u202e"]),
    ("workers dead show log[/] 2 -g [/red]", 1, ["of the group '[/red]'"]),
    (
        "workers dead retry log[/] --match [/red] --dry-run",
        0,
        [r"\x1b[31m", "1 dead letter would be"],
    ),
    ("workers dead retry log[/] --match-logs [bold] --dry-run", 0, ["1 dead letter would be"]),
    ("workers dead retry log[/] 1 --event [/red]", 2, ["--event is no JSON"]),
    ("workers dead retry log[/] --match [/red]", 0, ["retried 1"]),
    ("workers dead drop log[/] 1", 0, ["dropped 0"]),
    (f"workers dead list --{RED}[/red]", 2, [r"\x1b[31m[/red]"]),
]
NOT_WALKED: Final = {"bench", "demo", "serve", "run", "ui"}
"""They print nothing that others wrote, or have a test of their own here."""


def commands_of(app: Any) -> Iterator[str]:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        yield from (f"{name} {one}" for one in inner) if inner else (name,)


def test_every_command_prints_the_text_of_others_as_it_is_whole_and_never_raw(
    run: Run, folder: Path
) -> None:
    # Consumers named job[a] were swallowed, one named [/red] ended the table in a MarkupError,
    # escape codes of events reached the terminal, and names in a pipe were cut after 24 characters.
    make_nasty_log(folder / "log[/]")
    wrong = []
    for line, code, texts in WALK:
        ended, said = run(*line.split(" "))
        if ended != code:
            wrong.append(f"{line}: exit code {ended}")
        wrong += [f"{line}: no {text!r} in {said!r}" for text in texts if text not in said]
        if found := RAW.search(said):
            wrong.append(f"{line}: {found[0]!r} is raw in {said!r}")
        if "Traceback (" in said:
            wrong.append(f"{line}: {said}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_leaves_no_command_out(run: Run) -> None:
    run("eventlog", "--version")  # registers the commands
    run("workers", "--version")
    known = {*commands_of(eventlog.cli.app.app), *commands_of(workers.cli.app.app)}
    walked = {" ".join(line.split(" ")[1:3]) for line, _, _ in WALK}
    assert {
        name for name in known if not any(f"{one} ".startswith(f"{name} ") for one in walked)
    } == (NOT_WALKED)


PRINTERS: Final = {"printing"}


def test_commands_print_in_one_way_only() -> None:
    paths = [*(ROOT / "eventlog/cli").glob("*.py"), *(ROOT / "workers/cli").glob("*.py")]
    for path in (one for one in paths if one.stem not in PRINTERS):
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        for call in calls:
            name, place = ast.unparse(call.func), f"{path}:{call.lineno}"
            is_own_way = name in ("print", "typer.echo", "typer.secho", "sys.stderr.write")
            assert not is_own_way, f"{place} prints; use eventlog.terminal.printing"
            assert not name.endswith(".print"), f"{place} prints on its own"
            assert not name.endswith("Text.from_markup"), f"{place} reads markup"


def test_text_is_cleaned_of_all_that_a_terminal_obeys_and_of_nothing_else() -> None:
    assert (
        clean("grün 日本 \U0001f600 e\u0301\t\\n \u200d")
        == "grün 日本 \U0001f600 e\u0301\t\\n \u200d"
    )
    assert clean("a\nb\r\0\x1b\x7f\x85\u2028\ud800") == r"a\nb\r\x00\x1b\x7f\x85\u2028\ud800"


# --- JSON ------------------------------------------------------------------------------------


def test_tail_prints_strict_json_that_import_reads_back_without_loss(
    run: Run, folder: Path
) -> None:
    # NaN was no JSON, and of the keys 1 and "1" one entry was lost.
    events: list[Any] = [
        {1: "a", "1": "b"},
        {"$bytes": 1, "f": [float("inf"), -0.0]},
        b"\xff",
        EVENT,
    ]
    with blocking.open(folder / "log") as log:
        log.append_many(events, keys=["k", *[None] * 3])
        stored = list(log.read(1))
    _, said = run("eventlog", "tail", "log", "--json")
    lines = said.splitlines()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    assert [json.loads(line, parse_constant=refuse)["seq_no"] for line in lines] == [1, 2, 3, 4]
    assert list(json.loads(lines[0])) == ["seq_no", "id", "timestamp", "key", "headers", "event"]
    back: list[EventEnvelope] = list(map(envelope_of_line, lines))
    for one, other in zip(back, stored, strict=True):
        assert (one.id, one.timestamp_ns, one.key) == (other.id, other.timestamp_ns, other.key)
        assert one.event == other.event


# --- numbers and times that make no sense ------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "eventlog tail log --from 0001-01-01",
        "eventlog tail log --from 9999-12-31T23:59:59-14:00",
        "eventlog tail log --from ²",
        f"eventlog tail log --from {'9' * 5000}",
        "eventlog seek log c 0001-01-01",
        "workers dead list log --since 0001-01-01",
        "workers dead list log --since 9999-12-31T23:59:59",
        "workers dead list log --since 999999d",
        f"workers run log -g g --handler m:f --max-rss {'9' * 400}",
        "workers run log -g g --handler m:f --from 0001-01-01",
    ],
)
def test_a_time_or_number_that_nobody_can_use_is_one_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    with blocking.open(folder / "log") as log:
        log.append(1)
    code, said = run(*line.split(" "))
    if code or said:  # the last second of the year 9999 is a time like others
        assert code == (0 if "no dead letters" in said else 2)
        assert said.count("\n") == 1


# --- streams -----------------------------------------------------------------------------------


def shell(
    folder: Path, line: str, given: bytes = b"", environment: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell, in which `eventlog` is the program."""
    line = line.replace("eventlog ", f"{sys.executable} -m eventlog ", 1)
    return subprocess.run(
        ["/bin/sh", "-c", line],
        input=given,
        capture_output=True,
        env=environment,
        cwd=folder,
        timeout=60,
        check=False,
    )


def events_of(path: Path) -> list[Any]:
    with blocking.open(path) as log:
        return [envelope.event for envelope in log.read(1)]


@pytest.mark.parametrize(
    ("line", "code", "lines"),
    [
        ("eventlog append log <&-", 2, 1),
        ("eventlog import log <&-", 2, 1),
        ("eventlog tail log >&-", 2, 1),
        ("eventlog export log >&-", 2, 1),
        ("eventlog consumers log >&-", 0, 0),
        ("eventlog append log 2 >&- 2>&- <&-", 0, 0),
        ("eventlog tail none >&- 2>&- <&-", 2, 0),
    ],
)
def test_a_closed_stream_is_one_line_or_does_no_harm(
    folder: Path, line: str, code: int, lines: int
) -> None:
    # They ended in tracebacks, as the stream was `None`.
    with blocking.open(folder / "log") as log:
        log.append(1)
    done = shell(folder, line)
    assert (done.returncode, done.stderr.count(b"\n")) == (code, lines), done.stderr
    assert events_of(folder / "log") == ([1, 2] if "append log 2" in line else [1])


def test_input_and_output_are_utf8_whatever_the_locale_says(folder: Path) -> None:
    done = shell(folder, "eventlog append log", '"grün"\n"日本"\n'.encode(), STRICT)
    assert (done.returncode, done.stdout) == (0, b"1..2\n"), done.stderr
    done = shell(folder, "eventlog append log '\"ä\"' --key ö --header ü=ß", b"", STRICT)
    assert (done.returncode, done.stdout) == (0, b"3\n"), done.stderr
    assert events_of(folder / "log") == ["grün", "日本", "ä"]
    done = shell(folder, "eventlog tail log --format '{key} {headers} {event}'", b"", STRICT)
    assert done.stdout.decode() == "None None grün\nNone None 日本\nö {'ü': 'ß'} ä\n"


@pytest.mark.parametrize("options", ["", "--text"])
def test_a_line_that_is_no_utf8_is_named_and_those_before_it_are_stored(
    folder: Path, options: str
) -> None:
    # It was a traceback of a UnicodeDecodeError, and the good lines before it were lost.
    done = shell(folder, f"eventlog append log {options}", b'1\r\n"2"\n"\xff"\n4\n')
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: line 3 is no UTF-8")
    assert done.stderr.count(b"\n") == 1
    assert events_of(folder / "log") == (["1", '"2"'] if options else [1, "2"])


def test_a_line_that_cannot_be_stored_is_named_too(folder: Path) -> None:
    done = shell(folder, "eventlog append log", b'1\n{"a": [18446744073709551616]}\n3\n')
    assert done.returncode == 1
    assert b"error: line 2: the event cannot be stored" in done.stderr
    assert b"a[0]: " in done.stderr
    assert events_of(folder / "log") == [1]


def test_an_argument_that_is_no_utf8_is_one_line(folder: Path) -> None:
    done = shell(folder, "eventlog append log --text a \"$(printf 'b\\377')\"")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"argument 2 is no UTF-8" in done.stderr


def test_an_import_of_nothing_makes_an_empty_log(folder: Path) -> None:
    done = shell(folder, "eventlog import log < /dev/null")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert events_of(folder / "log") == []
    assert shell(folder, "eventlog import other", b"no event\n").returncode == 1
    assert not (folder / "other").exists()


# --- no room -----------------------------------------------------------------------------------


def test_a_limit_of_the_size_of_files_is_named_with_the_size_that_was_wanted(folder: Path) -> None:
    done = shell(folder, "ulimit -f 100; exec eventlog append log 1")
    assert done.returncode == 1
    for text in (b"allocating a segment of 67108864 bytes", b"ulimit -f", b"segment_bytes="):
        assert text in done.stderr
    assert b"free some space" not in done.stderr


# --- workers -------------------------------------------------------------------------------------

HANDLERS: Final = """
import logging

def log_escapes(event):
    logging.getLogger("x").warning("says \\x1b[31m[/red] %s", event)

def wait_for_ever(event):
    open("begun", "w").close()
    open("go").read()
"""
POOL: Final = """
import logging, sys
import eventlog.blocking, workers.blocking
logging.basicConfig(level=logging.ERROR)
with eventlog.blocking.open("log[/]") as log:
    with workers.blocking.Pool(log, group="[/red]", handler="tasks:nothing", processes=1,
                               progress=True) as pool:
        pool.drained()
print("done")
"""


def on_a_terminal(command: list[str], folder: Path) -> tuple[int, str]:
    """What a program draws on a terminal until it ends."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "200"},
        cwd=folder,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end of a terminal is gone: an error, and not the end
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    return process.wait(60), shown.decode(errors="replace")


def test_a_terminal_shows_the_group_and_the_log_lines_of_workers_as_they_are(folder: Path) -> None:
    (folder / "tasks.py").write_text(HANDLERS)
    with blocking.open(folder / "log[/]") as log:
        log.append("e")
    command = [sys.executable, "-m", "workers", "run", "log[/]", "-g", "[/red]"]
    options = ["--handler", "tasks:log_escapes", "-n", "1", "--until-drained"]
    code, shown = on_a_terminal([*command, *options], folder)
    assert code == 0, shown
    assert "[/red] of log[/]" in shown
    assert RED not in shown
    assert r"says \x1b[31m[/red] e" in STYLE.sub("", shown)


def test_the_progress_of_a_pool_shows_its_group_as_it_is(folder: Path) -> None:
    # A group named [/red] ended the pool in a MarkupError.
    (folder / "tasks.py").write_text("def nothing(event): pass\n")
    (folder / "pool.py").write_text(POOL)
    with blocking.open(folder / "log[/]") as log:
        log.append("e")
    code, shown = on_a_terminal([sys.executable, "pool.py"], folder)
    assert code == 0, shown
    assert "[/red]" in shown
    assert "done" in shown


def test_until_drained_ended_by_a_signal_is_no_success(folder: Path) -> None:
    # `workers run --until-drained && rm -r images` went on after a SIGTERM with half of the work.
    (folder / "tasks.py").write_text(HANDLERS)
    for name in ("begun", "go"):
        os.mkfifo(folder / name)
    with blocking.open(folder / "log") as log:
        log.append_many([1, 2])
    command = [sys.executable, "-m", "workers", "run", "log", "-g", "g", "-n", "1"]
    options = ["--handler", "tasks:wait_for_ever", "--until-drained", "--stop-timeout", "0.1"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=folder
    ) as process:
        (folder / "begun").read_bytes()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
