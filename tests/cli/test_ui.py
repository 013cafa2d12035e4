"""`eventlog ui`: who gets an answer, what it answers, and the page in a real browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from eventlog import blocking
from tests.cli.test_top import poison
from tests.commands import COMMAND, ENVIRONMENT, run

PATIENCE_S = 60.0
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


class Page:
    """A running `eventlog ui`, asked as a browser with its token asks, unless told otherwise."""

    def __init__(self, address: str) -> None:
        self.address = address
        parts = urllib.parse.urlsplit(address)
        self.host = parts.netloc
        self.token = urllib.parse.parse_qs(parts.query)["token"][0]
        self.cookie = f"eventlog-{parts.port}={self.token}"
        self.opened = ExitStack()

    def ask(
        self, path: str, method: str = "GET", body: Any = None, **headers: str
    ) -> http.client.HTTPResponse:
        """The answer; a header that is given as empty is left out."""
        usual = {"Host": self.host, "Cookie": self.cookie}
        if method == "POST":
            usual["Origin"] = f"http://{self.host}"
        connection = http.client.HTTPConnection(self.host, timeout=PATIENCE_S)
        self.opened.callback(connection.close)
        connection.putrequest(method, path, skip_host=True)
        data = b"" if body is None else json.dumps(body).encode()
        for name, value in {**usual, "Content-Length": str(len(data)), **headers}.items():
            if value:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(data)
        answer = connection.getresponse()
        self.opened.callback(answer.close)
        return answer

    def json(self, path: str, method: str = "GET", body: Any = None) -> Any:
        answer = self.ask(path, method, body)
        found = json.loads(answer.read())
        return found if answer.status == 200 else (answer.status, found["error"])

    def messages(self, path: str, **headers: str) -> Iterator[tuple[str, str, Any]]:
        """The server-sent events: kind, id, data."""
        answer = self.ask(path, **headers)
        assert answer.status == 200
        fields: dict[str, str] = {}
        for line in answer:
            text = line.decode().rstrip("\n")
            name, _, value = text.partition(": ")
            if name:
                fields[name] = value
            elif text == "" and "data" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}


@contextmanager
def page_of(*logs: str) -> Iterator[Page]:
    command = [*COMMAND, "ui", *logs, "--interval", "0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            page = Page(process.stdout.readline().strip())
            with page.opened:
                yield page
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) in (0, 130)
            assert process.stderr.read() == ""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    with blocking.open(tmp_path / "log") as opened:
        yield opened


@pytest.fixture
def page(log: blocking.EventLog) -> Iterator[Page]:
    with page_of(log.path) as shown:
        yield shown


# --- who gets an answer ----------------------------------------------------------------------


def test_only_who_knows_the_token_gets_an_answer(log: blocking.EventLog, page: Page) -> None:
    log.append({"secret": "swordfish"})
    for path in ("/", "/page.js", "/api/views", "/api/logs/0/events", "/api/logs/0/live"):
        for cookie in ("", "eventlog=x", page.cookie[:-1], f"{page.cookie}x"):
            answer = page.ask(path, Cookie=cookie)
            assert answer.status == 401, (path, cookie)
            assert b"swordfish" not in answer.read()
    assert page.ask("/?token=wrong").status == 401
    assert page.ask("/api/logs/0/events").status == 200


def test_a_token_in_the_address_becomes_a_cookie_of_this_page_alone(page: Page) -> None:
    answer = page.ask(f"/?token={page.token}", Cookie="")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(page.cookie)
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()


def test_other_hosts_and_origins_get_nothing(log: blocking.EventLog, page: Page) -> None:
    log.append_many(range(5))
    assert page.ask("/", Host="evil.example").status == 421
    assert page.ask("/", Host="").status in (400, 421)
    assert page.ask("/api/logs/0/events", Origin="http://evil.example").status == 403
    seek = {"consumer": "billing", "position": "3"}
    for origin in ("", "null", "http://evil.example", "http://127.0.0.1:1"):
        assert page.ask("/api/logs/0/seek", "POST", seek, Origin=origin).status == 403
    assert log.consumers() == []
    assert page.ask("/", Host=page.host.replace("127.0.0.1", "localhost")).status == 200


def test_the_page_is_served_on_loopback_and_loads_nothing_from_elsewhere(page: Page) -> None:
    assert page.host.startswith("127.0.0.1:")
    answer = page.ask("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert b"http" not in answer.read()
    assert page.ask("/page.js").headers["Content-Type"].startswith("text/javascript")
    assert page.ask("/../routes.py").status == 404


# --- what it answers -------------------------------------------------------------------------


def test_views_come_as_often_as_asked(log: blocking.EventLog, page: Page) -> None:
    log.append_many(range(5))
    log.ack("billing", 2)
    views = page.messages("/api/views")
    next(views)
    _, _, [view] = next(views)
    assert (view["last_seq_no"], view["appended_per_s"]) == (5, 0)
    assert [(one["name"], one["lag"]) for one in view["consumers"]] == [("billing", 3)]


def test_events_come_from_a_place_by_a_filter_and_go_on(log: blocking.EventLog, page: Page) -> None:
    log.append_many([{"n": n} for n in range(1, 51)], keys=[f"k{n % 2}" for n in range(1, 51)])
    found = page.json("/api/logs/0/events?from=7&count=3")
    assert [one["event"]["n"] for one in found["events"]] == [7, 8, 9]
    assert (found["following"], found["is_at_end"]) == (10, False)
    query = urllib.parse.urlencode({"where": 'key == "k0" and event.n > 45'})
    found = page.json(f"/api/logs/0/events?{query}")
    assert [one["seq_no"] for one in found["events"]] == [46, 48, 50]
    assert found["is_at_end"]
    last = page.json("/api/logs/0/events?last=1&count=2")
    assert [one["seq_no"] for one in last["events"]] == [49, 50]
    status, said = page.json("/api/logs/0/events?where=n+=")
    assert status == 400
    assert "^" in said
    assert page.json("/api/logs/7/events")[0] == 400
    assert page.json("/api/logs/0/events?from=nowhere")[0] == 400


def test_live_events_resume_after_the_last_one_that_was_seen(
    log: blocking.EventLog, page: Page
) -> None:
    log.append_many([{"n": n} for n in range(1, 11)])
    resumed = page.messages("/api/logs/0/live", Last_Event_ID="7")
    assert [next(resumed)[1] for _ in range(3)] == ["8", "9", "10"]
    log.append({"n": 11})
    kind, number, event = next(resumed)
    assert (kind, number, event["event"]) == ("message", "11", {"n": 11})


def test_live_events_that_no_page_can_draw_are_passed_over_and_counted(
    log: blocking.EventLog, page: Page
) -> None:
    log.append_many(range(5000))
    seen = skipped = 0
    for kind, number, found in page.messages("/api/logs/0/live", Last_Event_ID="0"):
        if kind == "passed":
            skipped += found
        else:
            seen += 1
        if number == "5000":
            break
    assert seen + skipped == 5000
    assert skipped > 3000


def test_actions_say_what_they_change_and_do_it(log: blocking.EventLog, page: Page) -> None:
    log.append_many(range(10))
    log.ack("billing", 8)
    poison(log, 2, 3)
    seek = {"consumer": "billing", "position": "4", "dry_run": True}
    said = page.json("/api/logs/0/seek", "POST", seek)["done"]
    assert said.startswith("billing: 8 -> 3, 5 events again, first of")
    position = {one.name: one.last_acked for one in log.consumers()}
    assert position["billing"] == 8
    page.json("/api/logs/0/seek", "POST", {**seek, "dry_run": False})
    page.json("/api/logs/0/ack", "POST", {"consumer": "billing", "seq_no": 5})
    position = {one.name: one.last_acked for one in log.consumers()}
    assert position["billing"] == 5
    found = page.json("/api/logs/0/letters?group=resize")
    assert [(one["seq_no"], one["error"]) for one in found["letters"]] == [
        (2, "ValueError: no [size]"),
        (3, "ValueError: no [size]"),
    ]
    drop = {"group": "resize", "seq_nos": [2]}
    assert page.json("/api/logs/0/drop", "POST", drop) == {"done": 1}
    assert page.json("/api/logs/0/retry", "POST", {"group": "resize", "seq_nos": [3]}) == {
        "done": 1
    }
    assert log.groups()[0].dead_letters == 0


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("seek", {"consumer": "", "position": "1"}),
        ("seek", {"consumer": 7, "position": "1"}),
        ("seek", {"consumer": "c"}),
        ("ack", {"consumer": "c", "seq_no": 99}),
        ("ack", {"consumer": "c", "seq_no": "x"}),
        ("retry", {"group": "none", "seq_nos": [1]}),
        ("drop", {"group": "g", "seq_nos": 1}),
        ("drop", [1]),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    log: blocking.EventLog, page: Page, name: str, body: Any
) -> None:
    log.append(1)
    status, said = page.json(f"/api/logs/0/{name}", "POST", body)
    assert status == 400
    assert len(said) > 10


def test_a_port_that_is_taken_and_a_log_that_is_none_are_told(
    log: blocking.EventLog, page: Page
) -> None:
    done = run("ui", log.path, "--port", page.host.rpartition(":")[2])
    assert done.returncode == 2
    assert "no page can be served at port" in done.stderr
    assert run("ui", f"{log.path}-none").returncode == 2


# --- in a browser ----------------------------------------------------------------------------

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield opened
    opened.quit()


def until(browser: webdriver.Chrome, is_so: Callable[[], Any], what: str) -> None:
    """Wait for the page, which draws when it has an answer."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        try:
            if is_so():
                return
        except (StaleElementReferenceException, WebDriverException):
            pass  # drawn anew meanwhile
        time.sleep(0.05)
    shown = browser.find_element(By.TAG_NAME, "body").text
    raise AssertionError(f"no {what} in\n{shown}")


@pytest.mark.slow
def test_in_a_browser_the_page_shows_filters_seeks_follows_and_retries(
    browser: webdriver.Chrome, log: blocking.EventLog, page: Page
) -> None:
    log.append_many([{"n": n, "text": "<b>bold</b>"} for n in range(1, 51)])
    log.ack("<i>billing</i>", 40)
    poison(log, 2)

    def element(name: str) -> Any:
        return browser.find_element(By.ID, name)

    def has(name: str, text: str) -> None:
        until(browser, lambda: text in element(name).text, f"{text} in {name}")

    def reader(text: str) -> Any:
        rows = browser.find_elements(By.CSS_SELECTOR, "#readers tbody tr")
        return next(row for row in rows if text in row.text)

    browser.get(page.address)
    assert page.token not in browser.current_url
    has("tiles", "50")
    has("readers", "<i>billing</i>")
    has("events", '{"n":50,"text":"<b>bold</b>"}')

    element("where").send_keys("event.n == 7", Keys.ENTER)
    until(browser, lambda: '{"n":50' not in element("events").text, "filter")
    has("events", '{"n":7')
    browser.find_element(By.CSS_SELECTOR, "#events tbody tr").click()
    has("event", '"<b>bold</b>"')
    element("where").clear()

    reader("billing").click()
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("k")
    element("ask-input").send_keys(Keys.CONTROL, "a", Keys.NULL, "11")
    has("ask-preview", "<i>billing</i>: 40 -> 10, 30 events again")
    element("ask-yes").click()
    until(browser, lambda: log.consumers()[0].last_acked == 10, "seek")

    reader("resize").click()
    body.send_keys("l")
    has("letters", "ValueError: no [size]")
    browser.find_element(By.CSS_SELECTOR, ".letter summary").click()
    has("letters", "Traceback: there")
    browser.find_element(By.CSS_SELECTOR, ".letter button").click()
    until(browser, lambda: "Retry event 2?" in element("ask-text").text, "question")
    element("ask-yes").click()
    until(browser, lambda: log.groups()[0].dead_letters == 0, "retry")

    element("live").click()
    has("events-state", "waiting for events")
    until(browser, lambda: bool(log.append({"n": "live"})) and "live" in element("events").text, "")
    logged: list[dict[str, str]] = browser.get_log("browser")  # type: ignore[no-untyped-call]  # of selenium
    assert [entry for entry in logged if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_in_a_browser_a_million_events_are_browsed_and_a_small_screen_holds_it(
    browser: webdriver.Chrome, log: blocking.EventLog, page: Page
) -> None:
    for _ in range(100):
        log.append_many([{"n": n} for n in range(10_000)])
    browser.set_window_size(400, 800)
    browser.get(page.address)

    def shown() -> str:
        return browser.find_element(By.ID, "events").text

    until(browser, lambda: "1,000,000" in shown(), "last event")
    browser.find_element(By.ID, "from").send_keys("500000", Keys.ENTER)
    until(browser, lambda: "500,000" in shown(), "event in the middle")
    too_wide = """return [...document.querySelectorAll("body *")]
        .filter((one) => one.getBoundingClientRect().right > innerWidth && !one.closest(".scroll"))
        .map((one) => one.outerHTML.slice(0, 80))"""
    assert browser.execute_script(too_wide) == []


def test_the_library_that_ships_with_the_page_has_its_licence() -> None:
    files = Path(__file__).parents[2] / "eventlog" / "monitor" / "page" / "files"
    assert "MIT" in (files / "uplot.LICENSE.txt").read_text()
    assert os.path.getsize(files / "uplot.js") > 40_000
