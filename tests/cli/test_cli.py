"""The command line as a user meets it: real processes, pipes, exit codes, signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from eventlog import SeekPosition, blocking
from tests.commands import COMMAND, ENVIRONMENT, out, run

COMMANDS = [
    "ack",
    "append",
    "backup",
    "bench",
    "compare",
    "config",
    "consumers",
    "create",
    "delete",
    "demo",
    "doctor",
    "export",
    "forget",
    "import",
    "ls",
    "mirror",
    "query",
    "restart",
    "seek",
    "serve",
    "status",
    "stop",
    "tail",
    "top",
    "trim",
    "ui",
    "verify",
]


def stop(pid: int) -> None:
    """End a writer in order, and wait until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    os.kill(pid, signal.SIGTERM)
    wait([descriptor])
    os.close(descriptor)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[str]:
    """The path of a log; its writer is ended after the test."""
    path = tmp_path / "log"
    yield str(path)
    if (path / "control").exists():
        pid = json.loads(out("status", str(path), "--json"))["writer_pid"]
        if pid is not None:
            stop(pid)


def test_events_of_a_pipe_come_out_of_another_one(log: str) -> None:
    lines = "".join(f'{{"order": {n}}}\n' for n in range(1, 1001))
    assert out("append", log, given=lines) == "1..1000\n"
    read = [json.loads(line) for line in out("tail", log, "--from", "1", "--json").splitlines()]
    assert [row["seq_no"] for row in read] == list(range(1, 1001))
    assert [row["event"]["order"] for row in read] == list(range(1, 1001))


def test_append_takes_arguments_with_key_and_headers(log: str) -> None:
    assert out("append", log, "1", '"two"', "--key", "k", "--header", "from=test") == "1..2\n"
    rows = [json.loads(line) for line in out("tail", log, "--json").splitlines()]
    assert [(row["event"], row["key"], row["headers"]) for row in rows] == [
        (1, "k", {"from": "test"}),
        ("two", "k", {"from": "test"}),
    ]


def test_append_reads_what_tail_prints_as_json(log: str) -> None:
    event = (
        '{"a": {"$array": ["<f4", [1], "AACAPw=="]}, "t": {"$datetime": "2026-01-31T12:00:00Z"}}'
    )
    out("append", log, event, '{"$ref": 1}', '{"$bytes": "AP8="}')
    shown = [json.loads(line)["event"] for line in out("tail", log, "--json").splitlines()]
    assert shown == [json.loads(event), {"$map": [["$ref", 1]]}, {"$bytes": "AP8="}]
    wrong = run("append", log, '{"$uuid": 5}')
    assert wrong.returncode == 1
    assert "argument 1 is no JSON of an event (5 is no text)" in wrong.stderr
    with blocking.open(log, start_writer=False) as opened:
        first, map_, octets = (one.event for one in opened.read(1))
    assert (first["a"].tolist(), first["t"].year) == ([1.0], 2026)
    assert (map_, octets) == ({"$ref": 1}, b"\x00\xff")


def test_tail_tells_what_a_result_came_from(log: str) -> None:
    cause = {"log_id": "00000000-0000-0000-0000-000000000007", "seq_no": 3, "group": "resize"}
    identity = "018df4d8-0853-7482-a0b6-1d8e07f2947c"
    lines = [{"event": 1, "id": identity, "key": "k", "cause": cause}, {"event": 2}]
    out("import", log, given="".join(f"{json.dumps(line)}\n" for line in lines))
    result, plain = map(json.loads, out("tail", log, "--json").splitlines())
    assert (result["id"], result["key"], result["cause"]) == (identity, "k", cause)
    assert "cause" not in plain
    shown = out("tail", log, "--from", "1", "-n", "1", "--format", "{cause.group} {cause.seq_no}")
    assert shown == "resize 3\n"


def test_append_of_text_stores_lines_as_they_are(log: str) -> None:
    out("append", log, "--text", given="not json\n\n{x\n")
    assert out("tail", log, "--format", "{seq_no}:{event}") == "1:not json\n2:\n3:{x\n"


def test_a_line_that_is_no_json_is_named_and_those_before_it_are_stored(log: str) -> None:
    done = run("append", log, given="1\n2\nthree\n4\n")
    assert done.returncode == 1
    assert "line 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert out("tail", log) == "1\t1\n2\t2\n"


def test_tail_shows_the_last_ones_or_those_from_a_place(log: str) -> None:
    out("append", log, *map(str, range(1, 21)))

    def numbers(*options: str) -> list[int]:
        return [int(line.split("\t")[0]) for line in out("tail", log, *options).splitlines()]

    assert numbers() == list(range(11, 21))
    assert numbers("-n", "2") == [19, 20]
    assert numbers("-n", "0") == []
    assert numbers("--from", "beginning", "-n", "3") == [1, 2, 3]
    assert numbers("--from", "18") == [18, 19, 20]
    assert numbers("--from", "2000-01-01T00:00:00+00:00") == list(range(1, 21))
    assert numbers("--from", "latest") == []


def test_tail_as_a_consumer_acknowledges_what_it_printed(log: str) -> None:
    out("append", log, "1", "2", "3")
    assert out("tail", log, "--consumer", "c", "-n", "2") == "1\t1\n2\t2\n"
    assert out("tail", log, "--consumer", "c") == "3\t3\n"
    assert out("tail", log, "--consumer", "c") == ""
    (state,) = map(json.loads, out("consumers", log, "--json").splitlines())
    assert (state["name"], state["last_acked"], state["lag"]) == ("c", 3, 0)


def test_positions_can_be_set_listed_and_forgotten(log: str) -> None:
    out("append", log, "1", "2", "3")
    out("ack", log, "c", "2")
    out("seek", log, "d", "beginning")
    states = {s["name"]: s for s in map(json.loads, out("consumers", log, "--json").splitlines())}
    assert (states["c"]["last_acked"], states["c"]["lag"]) == (2, 1)
    assert (states["d"]["last_acked"], states["d"]["lag"]) == (None, 3)
    assert "c" in out("consumers", log)
    out("forget", log, "c")
    assert len(out("consumers", log, "--json").splitlines()) == 1


def test_seeking_a_consumer_that_may_run_says_that_its_next_ack_undoes_it(log: str) -> None:
    """It was undone in silence."""
    with blocking.open(log) as opened:
        opened.append_many([1, 2, 3])
        opened.ack("billing", 2)
    assert "stop the consumer first" in run("seek", log, "billing", "1").stderr
    assert run("seek", log, "nobody", "1").stderr == ""


def test_seeking_past_the_end_says_that_the_consumer_will_wait(log: str) -> None:
    out("append", log, "1", "2", "3")
    assert run("seek", log, "c", "4").stderr == ""  # the next one: live
    done = run("seek", log, "d", "5")
    assert done.returncode == 0
    assert done.stderr == "note: the last event is 3; d will wait for event 5\n"


def test_a_reader_that_has_seen_enough_ends_tail_quietly(log: str) -> None:
    out("append", log, given="".join(f'"{"x" * 500}"\n' for _ in range(2000)))
    tail = subprocess.Popen(
        [*COMMAND, "tail", log, "--from", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert tail.stdout.readline().startswith(b"1\t")
    tail.stdout.close()
    assert tail.stderr.read() == b""
    tail.stderr.close()
    assert tail.wait(30) == 0


def test_ack_takes_a_state_from_a_file_and_from_the_standard_input(
    log: str, tmp_path: Path
) -> None:
    run("append", log, "1", "2", "3")
    file = tmp_path / "state"
    file.write_bytes(b"\0 any bytes")
    out("ack", log, "c", "2", "--state-file", str(file))
    assert "11 bytes" in out("consumers", log)
    with blocking.open(log) as opened:
        assert [one.state for one in opened.consumers()] == [b"\0 any bytes"]
    assert run("ack", log, "c", "3", "--state-file", "-", given="420\n").returncode == 0
    (row,) = map(json.loads, out("consumers", log, "--json").splitlines())
    assert (row["last_acked"], row["state_bytes"]) == (3, 4)
    file.write_bytes(bytes(64 * 1024 + 1))
    done = run("ack", log, "c", "3", "--state-file", str(file))
    assert done.returncode == 2
    assert "has 65537 bytes; give 65536 at most" in done.stderr
    out("ack", log, "d", "1")
    assert json.loads(out("consumers", log, "--json").splitlines()[1])["state_bytes"] is None


def test_tail_follows_and_ctrl_c_ends_it_without_a_traceback(log: str) -> None:
    out("append", log, "1")
    tail = subprocess.Popen(
        [*COMMAND, "tail", log, "-f", "--from", "beginning"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    with tail.stdout, tail.stderr:
        assert tail.stdout.readline() == "1\t1\n"
        out("append", log, "2")
        assert tail.stdout.readline() == "2\t2\n"
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130
        assert "Traceback" not in tail.stderr.read()


def test_reading_needs_no_writer_and_leaves_a_copy_as_it_is(log: str, tmp_path: Path) -> None:
    out("append", log, "1", "2")
    stop(json.loads(out("status", log, "--json"))["writer_pid"])
    copy = tmp_path / "copy"
    shutil.copytree(log, copy, ignore=shutil.ignore_patterns("writer.*"))
    names = sorted(os.listdir(copy))
    assert out("tail", str(copy)) == "1\t1\n2\t2\n"
    assert json.loads(out("status", str(copy), "--json"))["writer_pid"] is None
    assert "whole" in out("verify", str(copy))
    assert out("consumers", str(copy)) == "no consumers\n"
    assert sorted(os.listdir(copy)) == names


def test_verify_names_the_range_that_is_damaged(log: str) -> None:
    with blocking.open(log) as opened:
        for number in range(1, 10):
            opened.append(number)
    stop(json.loads(out("status", log, "--json"))["writer_pid"])
    segment = Path(log) / f"{1:020d}.seg"
    content = bytearray(segment.read_bytes())
    content[64 + 100] ^= 1  # in the first batch
    segment.write_bytes(content)
    done = run("verify", log)
    assert done.returncode == 1
    assert "events 1 to 1" in done.stdout
    report = json.loads(run("verify", log, "--json").stdout)
    assert (report["whole"], report["events"]) == (False, 8)


def test_verify_repairs_what_it_can_and_keeps_the_rest(log: str) -> None:
    with blocking.open(log) as opened:
        opened.append_many(range(10))
        opened.append_many(range(10))
        served = run("verify", "--repair", log)
        assert served.returncode == 2
        assert "served by a writer" in served.stderr
    stop(json.loads(out("status", log, "--json"))["writer_pid"])
    assert "nothing to mend" in out("verify", "--repair", log)
    segment = Path(log) / f"{1:020d}.seg"
    content = bytearray(segment.read_bytes())
    content[20] ^= 1  # in the segment's header
    segment.write_bytes(content)
    os.unlink(segment.with_suffix(".idx"))
    assert run("verify", log).returncode == 1
    report = json.loads(out("verify", "--repair", "--json", log))
    assert (report["whole"], report["events"], report["problems"]) == (True, 20, [])
    assert len(report["repair"]["done"]) == 2
    assert report["repair"]["kept"] == [segment.name + ".damaged"]
    content[64 + 100] ^= 1  # in the first batch
    content[20] ^= 1
    segment.write_bytes(content)
    done = run("verify", "--repair", log)
    assert done.returncode == 1
    assert "events 1 to 10" in done.stdout
    assert json.loads(out("status", log, "--json"))["last_seq_no"] == 20


def test_verify_repairs_a_log_without_its_control_page(log: str) -> None:
    out("append", log, "1", "2")
    stop(json.loads(out("status", log, "--json"))["writer_pid"])
    (Path(log) / "control").write_bytes(b"")
    assert run("verify", log).returncode == 1
    done = run("verify", "--repair", log)
    assert done.returncode == 1  # the options are lost
    assert "mended: made the control page again" in done.stdout
    assert "whole" in out("verify", log)
    assert out("append", log, "3") == "3\n"


def test_serve_is_the_writer_until_it_is_told_to_stop(log: str) -> None:
    cpu = max(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [*COMMAND, "serve", log, "--durability", "memory", "--cpus", f"{cpu},{cpu}-{cpu}"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert server.stderr is not None
    with server.stderr:
        assert "writer of" in server.stderr.readline()
        with blocking.open(log) as opened:
            assert opened.status().writer_pid == server.pid
            assert os.sched_getaffinity(server.pid) == {cpu}
            assert opened.status().durability == "memory"
            opened.append(1)
        second = run("serve", log)
        assert second.returncode == 1
        assert "already has a writer" in second.stderr
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


@pytest.mark.parametrize("command", ["tail", "status", "verify", "consumers"])
def test_a_log_that_is_not_there_is_an_error_and_is_not_made(command: str, tmp_path: Path) -> None:
    done = run(command, str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "no log" in done.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ("tail", "LOG", "--from", "sometime"),
        ("tail", "LOG", "--format", "{nothing}"),
        ("tail", "LOG", "--format", "{event[}"),
        ("serve", "LOG", "--linger", "-1"),
        ("serve", "LOG", "--linger", "nan"),
        ("serve", "LOG", "--cpus", "first"),
        ("seek", "LOG", "c", "nowhere"),
        ("ack", "LOG", "c", "x"),
        ("append", "LOG", "1", "--header", "novalue"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_reason(log: str, arguments: tuple[str, ...]) -> None:
    out("append", log, "1")
    done = run(*(log if argument == "LOG" else argument for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_serve_makes_no_log_for_a_linger_that_is_none(tmp_path: Path) -> None:
    assert run("serve", str(tmp_path / "log"), "--linger", "-1").returncode == 2
    assert not os.listdir(tmp_path)


def test_events_as_deep_as_can_be_are_shown_and_deeper_ones_refused(log: str) -> None:
    deepest = "[" * 1021 + "]" * 1021
    out("append", log, given=deepest)
    assert out("tail", log) == f"1\t{deepest}\n"
    assert f'"event": {deepest}' in out("tail", log, "--json")
    for depth in (1022, 100_000):
        done = run("append", log, given="[" * depth + "]" * depth)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


def test_an_ack_past_the_end_says_so(log: str) -> None:
    out("append", log, "1")
    done = run("ack", log, "c", "2")
    assert done.returncode == 1
    assert "the last one" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    assert f"eventlog {command}" in out(command, "--help").split("Example", 1)[1]


def test_the_commands_are_those_that_are_tested_here() -> None:
    listed = out("--help").split("Commands", 1)[1]
    assert [name for name in COMMANDS if f" {name} " in listed] == COMMANDS


def test_a_shell_completes_every_command() -> None:
    asked = {"_EVENTLOG_COMPLETE": "complete_bash", "COMP_WORDS": "eventlog ", "COMP_CWORD": "1"}
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, env=ENVIRONMENT | asked, timeout=60, check=False
    )
    assert sorted(done.stdout.split()) == COMMANDS


def test_the_version_is_the_packages() -> None:
    import eventlog

    assert out("--version") == f"eventlog {eventlog.__version__}\n"


@pytest.mark.parametrize("files", [30, pytest.param(150, marks=pytest.mark.slow)])
def test_the_demonstration_kills_a_consumer_and_proves_what_all_saw(
    tmp_path: Path, files: int
) -> None:
    for number in range(files):
        statements = (f"x{n} = [{n}] * {n}\n" for n in range(400))
        (tmp_path / f"m{number}.py").write_text("".join(statements))
    (tmp_path / "broken.py").write_text("def (:\n")
    report = json.loads(out("demo", str(tmp_path), "--consumers", "2", "--json"))
    assert report["right"] is True
    assert report["events"] == files + 1
    assert [c["position"] for c in report["consumers"]] == [files + 1, files + 1]
    assert [c["unparsable"] for c in report["consumers"]] == [1, 1]
    assert report["killed"] in ("parser-1", None)


@pytest.mark.slow
def test_bench_gives_figures(tmp_path: Path) -> None:
    report = json.loads(out("bench", "--events", "1000", "--dir", str(tmp_path), "--json"))
    assert all(figure > 0 for figure, _unit in report["figures"].values())
    assert len(report["figures"]) == 10
    assert not os.listdir(tmp_path)


def test_a_position_on_the_command_line_means_what_the_library_means() -> None:
    from eventlog.terminal.positions import position_of

    assert position_of("beginning") == SeekPosition.BEGINNING
    assert position_of("17") == SeekPosition.sequence(17)


@pytest.mark.parametrize("command", ["tail {} --from beginning", "status {}", "export {}"])
def test_an_output_that_is_full_is_an_error_in_one_line(tmp_path: Path, command: str) -> None:
    log = str(tmp_path / "log")
    run("append", log, "1")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eventlog", *(word.format(log) for word in command.split())],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1
