"""`--metrics`: what Prometheus is told of a real log, by the commands that stay."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eventlog import blocking
from eventlog.errors import InvalidArgument
from eventlog.monitor.metrics import place_of, serving_metrics
from eventlog.terminal.log_lines import LogFormat, formatter_of
from tests.commands import COMMAND, ENVIRONMENT, run

PATIENCE_S = 30.0
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def scraped(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The samples by name, each with its labels and value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextmanager
def serving(path: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "serve", str(path), "--metrics", f":{port}", "--log-format", "json"]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            with blocking.open(path):  # finds it, or is first: it then takes over
                yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            told = [json.loads(line) for line in process.stderr]
            assert {one["logger"] for one in told} == {"eventlog.writer"}
            assert process.wait(PATIENCE_S) == 0


def test_a_scrape_has_the_log_its_consumers_groups_members_and_writer(tmp_path: Path) -> None:
    with blocking.open(tmp_path / "log") as log, serving_metrics([log.path], ":0") as port:
        log.append_many(range(10), keys=["[k]"] * 10)
        log.ack('a "b" {c}', 4)
        with log.member("resize") as member:
            lease = member.lease(3)
            assert lease is not None
            for _, envelope in lease:
                lease.begin(envelope)
                lease.done(envelope)
            member.flush()
            found = scraped(port)
        of_log = {"log": log.path}
        assert found["eventlog_up"] == [(of_log, 1)]
        assert found["eventlog_last_seq_no"] == [(of_log, 10)]
        assert found["eventlog_consumer_lag"] == [({**of_log, "consumer": 'a "b" {c}'}, 6)]
        [(labels, age)] = found["eventlog_consumer_lag_seconds"]
        assert 0 <= age < PATIENCE_S
        assert labels["consumer"] == 'a "b" {c}'
        [(labels, handled)] = found["eventlog_member_handled_total"]
        assert (labels["group"], handled) == ("resize", 3)
        assert found["eventlog_writer_appended_total"] == [(of_log, 10)]
        assert found["eventlog_writer_resident_memory_bytes"][0][1] > 1 << 20


def test_a_log_that_is_gone_is_down_and_the_scrape_goes_on(tmp_path: Path) -> None:
    with serving_metrics(["kafka://"], ":0") as port:
        assert scraped(port) == {"eventlog_up": [({"log": "kafka://"}, 0)]}


def test_several_logs_are_samples_of_the_same_metrics(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for count, path in enumerate(paths, start=1):
        with blocking.open(path) as log:
            log.append_many(range(count))
    with serving_metrics([*paths, "kafka://", paths[0]], ":0") as port:
        found = scraped(port)
    assert found["eventlog_last_seq_no"] == [({"log": paths[0]}, 1), ({"log": paths[1]}, 2)]
    assert [up for _, up in found["eventlog_up"]] == [1, 1, 0]


def test_serve_serves_metrics_until_sigterm(tmp_path: Path) -> None:
    port = free_port()
    with blocking.open(tmp_path / "log") as log:
        log.append_many(range(3))
    with serving(tmp_path / "log", port) as process:
        with blocking.open(tmp_path / "log") as log:
            while log.status().writer_pid != process.pid:
                log.append(0)  # until it has taken over
        assert scraped(port)["eventlog_up"][0][1] == 1
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_a_pool_in_the_foreground_serves_metrics_of_its_group_and_workers(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "tasks.py").write_text("def keep(event):\n    pass\n")
    with blocking.open(tmp_path / "log") as log:
        log.append_many(range(20))
        options = ["-g", "keep", "--handler", "tasks:keep", "-n", "1", "--metrics", f":{port}"]
        command = [sys.executable, "-m", "workers", "run", log.path, *options]
        with subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path) as process:
            while log.groups() == [] or log.groups()[0].lag:
                log.append(0)  # until it is at work, and has handled all
                log.synced()
            found = scraped(port)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
    assert found["eventlog_group_members"] == [({"log": log.path, "group": "keep"}, 1)]
    [(labels, handled)] = found["eventlog_member_handled_total"]
    assert labels["group"] == "keep"
    assert handled > 20


def test_the_page_serves_metrics_of_all_its_logs(tmp_path: Path) -> None:
    port = free_port()
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in paths:
        blocking.open(path).close()
    command = [*COMMAND, "ui", *paths, "--metrics", f":{port}"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")
        found = scraped(port)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    assert found["eventlog_up"] == [({"log": path}, 1) for path in paths]


@pytest.mark.parametrize("text", ["9464", "host:", ":x", ":70000", ""])
def test_a_place_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(InvalidArgument, match="HOST:PORT"):
        place_of(text)


def test_places_are_on_this_machine_unless_they_say_otherwise() -> None:
    assert place_of(":9464") == ("127.0.0.1", 9464)
    assert place_of("0.0.0.0:1") == ("0.0.0.0", 1)
    assert place_of("[::1]:2") == ("::1", 2)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = run("serve", str(tmp_path / "log"), "--metrics", f":{port}")
    assert done.returncode == 2
    assert f"no metrics can be served at :{port}" in done.stderr


def test_the_dashboard_shows_metrics_that_there_are(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"eventlog_\w+", expression)}
    with blocking.open(tmp_path / "log") as log, serving_metrics([log.path], ":0") as port:
        log.append_many(range(10))
        log.ack("billing", 4)
        with log.member("resize"):
            assert names <= set(scraped(port))


def test_lines_of_log_may_be_json(tmp_path: Path) -> None:
    formatter = formatter_of(LogFormat.json, "")
    try:
        raise ValueError("[bad]\x1b[31m")
    except ValueError:
        told = logging.LogRecord("eventlog.writer", logging.WARNING, "", 0, "a %s\nb", ("x",), None)
        told.exc_info = sys.exc_info()
    told.worker = "worker 3"
    line = formatter.format(told)
    assert "\n" not in line
    assert "\x1b" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == (
        *("warning", "eventlog.writer"),
        "a x\nb",
    )
    assert fields["worker"] == "worker 3"
    assert fields["traceback"].endswith("ValueError: [bad]\x1b[31m")
    assert datetime.fromisoformat(fields["time"]).tzinfo is not None
