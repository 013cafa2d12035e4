"""JetStream's own: what happens when its server is killed, stopped, cut off or set otherwise."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
import eventlog.blocking
from eventlog import EventLog, Retention, SeekPosition
from eventlog.config import AskedOptions
from eventlog.errors import (
    CorruptLog,
    EventsTruncated,
    EventTooLarge,
    InvalidArgument,
    LogDeleted,
    NotALog,
    NotSupported,
    PermissionDenied,
    WriterUnavailable,
    WrongExpectation,
)
from eventlog.jetstream.address import parse
from eventlog.remote.log import RemoteEventLog
from eventlog.remote.record import RecordBuilder
from tests import servers
from tests.engines.cutting import cutting

pytestmark = pytest.mark.anyio

HANG_S = 20.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The driver crosses into another thread from trio, so both count."""
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.Server]:
    """A server that the test may kill."""
    servers.require("nats")
    with servers.own("nats", tmp_path / "nats") as own:
        yield own


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A stream of the server that tests share."""
    servers.require("nats")
    return f"{servers.shared('nats').address}own-{tmp_path.name[-40:].replace('.', '-')}"


async def numbers(log: EventLog) -> list[int]:
    """The payloads of the log; checks that their numbers have no gap."""
    envelopes = await log.read(0)
    assert [one.seq_no for one in envelopes] == list(range(1, len(envelopes) + 1))
    return [one.event for one in envelopes]


@asynccontextmanager
async def admin(address: str) -> AsyncIterator[Any]:
    """Somebody else with a client of the server, in a thread of their own for trio's sake."""
    import nats

    host = address.rpartition("/")[0]

    def ask(subject: str, body: Any = None) -> Any:
        async def call() -> Any:
            client = await nats.connect(host)
            try:
                payload = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
                answer = json.loads((await client.request(subject, payload, timeout=10)).data)
            finally:
                await client.close()
            assert "error" not in answer, answer
            return answer

        return asyncio.run(call())

    async def called(subject: str, body: Any = None) -> Any:
        return await anyio.to_thread.run_sync(ask, subject, body)

    yield called


async def edit(address: str, **settings: Any) -> dict[str, Any]:
    """Set the log's stream otherwise; how it was set."""
    stream = address.rpartition("/")[2]
    async with admin(address) as ask:
        config: dict[str, Any] = (await ask(f"$JS.API.STREAM.INFO.{stream}"))["config"]
        await ask(f"$JS.API.STREAM.UPDATE.{stream}", config | settings)
    return config


# --- a server that ends ----------------------------------------------------------------------


async def test_nothing_is_lost_or_doubled_while_the_server_is_killed_again_and_again(
    server: servers.Server,
) -> None:
    count, acknowledged = 60, []
    async with eventlog.open(f"{server.address}orders") as log:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:

                async def produce() -> None:
                    for number in range(count):
                        first, _ = await log.append_many([number, number])
                        acknowledged.append(first)

                tasks.start_soon(produce)
                for _ in range(3):
                    reached = len(acknowledged) + 5
                    while len(acknowledged) < min(reached, count):  # noqa: ASYNC110 - see the limit
                        await anyio.sleep(0.001)
                    server.kill()
                    server.start()
        assert await numbers(log) == [n for number in range(count) for n in (number, number)]
        assert acknowledged == list(range(1, 2 * count, 2))


async def test_a_stream_goes_on_after_a_kill_without_a_gap_or_a_double(
    server: servers.Server,
) -> None:
    async with eventlog.open(f"{server.address}orders") as log:
        await log.append_many(range(10))
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            with anyio.fail_after(60):
                seen = [(await anext(stream)).event for _ in range(10)]
                server.kill()
                server.start()
                await log.append_many(range(10, 20))
                seen += [(await anext(stream)).event for _ in range(10)]
    assert seen == list(range(20))


async def test_events_that_the_server_lost_end_a_stream_and_none_takes_their_place(
    server: servers.Server, tmp_path: Path
) -> None:
    kept, store = tmp_path / "kept", server.folder / "jetstream"
    async with eventlog.open(f"{server.address}orders") as log:
        await log.append_many(["a", "b"])
        server.end()
        shutil.copytree(store, kept)
        server.start()
        await log.append_many(["lost", "lost"])
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            with anyio.fail_after(60):
                assert [(await anext(stream)).event for _ in range(4)] == ["a", "b", "lost", "lost"]
                server.kill()
                shutil.rmtree(store)
                shutil.copytree(kept, store)
                server.start()
                assert await log.append_many(["c", "d", "e"]) == (3, 5)
                with pytest.raises(CorruptLog, match="lost its") as told:
                    await anext(stream)
            assert told.value.seq_no == 4


async def test_positions_survive_a_kill_of_the_server(server: servers.Server) -> None:
    async with eventlog.open(f"{server.address}orders") as log:
        await log.append_many(range(5))
        await log.ack("billing", 3)
        server.kill()
        server.start()
        await log.ack("billing", 2)
        [state] = await log.consumers()
    assert (state.name, state.last_acked, state.lag) == ("billing", 3, 2)


@pytest.mark.parametrize("count", [1, 3], ids=["one", "batch"])
async def test_a_repeated_conditional_batch_gets_its_first_answer(address: str, count: int) -> None:
    async with eventlog.open(address) as log, eventlog.open(address) as other:
        assert isinstance(log, RemoteEventLog)
        assert isinstance(other, RemoteEventLog)
        records = RecordBuilder((await log.ready()).limits, address)
        batch = [records.pack(number) for number in range(count)]
        driver = (await log.ready()).driver
        assert await driver.append(7, 1, batch, 0) == 1
        assert await log.append("other") == count + 1
        # Another handle knows of no batch of the producer, and asks the server.
        assert await (await other.ready()).driver.append(7, 1, batch, 0) == 1
        with pytest.raises(WrongExpectation) as caught:
            await driver.append(8, 1, batch, count)
        assert (caught.value.key, caught.value.last_seq_no) == (None, count + 1)
        assert await numbers(log) == [*range(count), "other"]


@pytest.mark.slow
async def test_a_stopped_server_is_waited_for_and_an_append_is_stored_once(
    server: servers.Server,
) -> None:
    async with eventlog.open(f"{server.address}orders") as log:
        await log.append(0)
        server.pause()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.append, 1)
                await anyio.sleep(6)  # longer than a call waits for its answer
                server.resume()
        assert await numbers(log) == [0, 1]


async def test_without_a_server_a_call_ends_after_retry_s(server: servers.Server) -> None:
    async with eventlog.open(f"{server.address}orders", retry_s=0.3) as log:
        await log.append(0)
        server.kill()
        with anyio.fail_after(HANG_S), pytest.raises(WriterUnavailable, match="did not answer"):
            await log.append(1)
        server.start()
        assert await log.append(2) in (2, 3)


@pytest.mark.slow
async def test_open_fails_soon_where_nobody_answers(server: servers.Server) -> None:
    server.kill()
    with anyio.fail_after(HANG_S), pytest.raises(WriterUnavailable):
        async with eventlog.open(f"{server.address}orders"):
            pytest.fail("there is no server")


# --- streams that others touch ---------------------------------------------------------------


async def test_a_deleted_stream_is_told_and_never_made_anew_below_a_handle(address: str) -> None:
    stream = address.rpartition("/")[2]
    async with eventlog.open(address) as log:
        await log.append(1)
        async with admin(address) as ask:
            await ask(f"$JS.API.STREAM.DELETE.{stream}")
        with pytest.raises(LogDeleted, match="open it again"):
            await log.append(2)
        async with eventlog.open(address) as other:  # another log of the same name
            assert await other.append(7) == 1
            with pytest.raises(LogDeleted):
                await log.append(3)
            with pytest.raises(LogDeleted):
                await log.last_seq_no()
            assert await numbers(other) == [7]


async def test_a_purge_is_told_and_numbers_go_on(address: str) -> None:
    stream = address.rpartition("/")[2]
    async with eventlog.open(address) as log:
        await log.append_many(range(3))
    # What no log allows: deny_purge is for good, so the start of the log goes by age here.
    config = await edit(address, max_msgs=1)
    assert config["deny_purge"]
    assert config["name"] == stream
    async with eventlog.open(address) as log:
        with pytest.raises(EventsTruncated) as told:
            await log.read(1)
        assert told.value.first_available == 3
        assert await log.append(3) == 4


async def test_the_message_of_a_stranger_is_named_and_not_passed_over(address: str) -> None:
    async with eventlog.open(address) as log:
        await log.append(1)
        stream = address.rpartition("/")[2]
        async with admin(address) as ask:
            info = await ask(f"$JS.API.STREAM.INFO.{stream}")
            await ask(info["config"]["subjects"][0], b"not an event")
        await log.append(3)
        with pytest.raises(CorruptLog, match="event 2 ") as told:
            await log.read(1)
        assert told.value.seq_no == 2
        assert [one.event for one in await log.read(3)] == [3]


async def test_the_stream_of_somebody_else_is_left_alone(address: str) -> None:
    stream = address.rpartition("/")[2]
    async with admin(address) as ask:
        made = await ask(f"$JS.API.STREAM.CREATE.{stream}", {"name": stream, "subjects": [stream]})
        with pytest.raises(NotALog, match="was not made by eventlog"):
            async with eventlog.open(address):
                pytest.fail("it is not ours")
        info = await ask(f"$JS.API.STREAM.INFO.{stream}")
    assert info["config"] == made["config"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("max_msgs_per_subject", 5), ("discard", "new"), ("subjects", ["a", "b"])],
)
async def test_a_setting_that_breaks_a_promise_is_named(
    address: str, setting: str, value: Any
) -> None:
    async with eventlog.open(address):
        pass
    if setting == "subjects":
        value = [f"{address.rpartition('/')[2]}.{one}" for one in value]
    await edit(address, **{setting: value})
    with pytest.raises(NotSupported, match=setting) as refused:
        async with eventlog.open(address):
            pytest.fail("numbers would have gaps")
    assert (refused.value.engine, refused.value.option) == ("jetstream", setting)


# --- who may, and how much -------------------------------------------------------------------

SECRET = "s3cret/p@ss"
USERS = """
authorization { users: [
    { user: boss, password: "s3cret/p@ss" }
    { user: reader, password: "r", permissions: {
        publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] } }
] }
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[servers.Server]:
    """A server with users."""
    servers.require("nats")
    config = tmp_path / "users.conf"
    config.write_text(USERS)
    with servers.own("nats", tmp_path / "nats", "--config", str(config)) as own:
        yield own


def with_user(server: servers.Server, user: str) -> str:
    return f"{server.address}orders".replace("://", f"://{user}@")


async def test_a_wrong_password_is_told_and_shown_nowhere(guarded: servers.Server) -> None:
    address = with_user(guarded, "boss:wr0ng")
    with anyio.fail_after(HANG_S), pytest.raises(PermissionDenied) as refused:
        async with eventlog.open(address):
            pytest.fail("it is wrong")
    assert "wr0ng" not in "".join(traceback.format_exception(refused.value, chain=True))


async def test_a_password_opens_and_is_shown_nowhere(
    guarded: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = eventlog.open(with_user(guarded, "boss:s3cret%2Fp%40ss"))
    async with log:
        assert await log.append(1) == 1
        status = await log.status()
    assert "s3cret" not in f"{log!r} {log.path} {status}"
    monkeypatch.setenv("NATS_USER", "boss")
    monkeypatch.setenv("NATS_PASSWORD", SECRET)
    async with eventlog.open(f"{guarded.address}orders") as again:
        assert await again.append(2) == 2


async def test_a_password_that_is_an_option_opens_also_outputs_and_is_shown_nowhere(
    guarded: servers.Server,
) -> None:
    log = eventlog.open(f"{guarded.address}orders", user="boss", password=SECRET)
    async with log, log.group("g") as group:
        await log.append(1)
        async with await group.open_member(output=f"{guarded.address}results") as member:
            lease = await member.lease()
            assert lease is not None
            [(_, envelope)] = lease
            assert lease.begin(envelope)
            lease.done_with(envelope, ["result"])
            await member.flush()
        copy = pickle.loads(pickle.dumps(log))
    async with copy:
        assert await copy.last_seq_no() == 1
    with anyio.fail_after(HANG_S), pytest.raises(PermissionDenied) as refused:
        async with eventlog.open(log.path, user="boss", password="wr0ng"):
            pytest.fail("it is wrong")
    shown = "".join(traceback.format_exception(refused.value, chain=True))
    assert "s3cret" not in f"{log!r} {log.path} {log.__reduce__()}"
    assert "wr0ng" not in shown.replace('password="wr0ng"', "")  # the line of this test


def test_options_go_before_the_address_and_the_address_before_the_environment() -> None:
    environment = {"NATS_USER": "e", "NATS_PASSWORD": "f", "NATS_TOKEN": "g"}

    def who(address: str, **asked: Any) -> tuple[str | None, str | None, str | None]:
        found = parse(address, environment, AskedOptions(**asked)).credentials
        return found.user, found.password, found.token

    assert who("nats://h/s", user="a", password="b") == ("a", "b", None)
    assert who("nats://u:p@h/s", user="a", password="b") == ("a", "b", None)
    assert who("nats://u@h/s", password="b") == ("u", "b", None)
    assert who("nats://u:p@h/s", token="t") == (None, None, "t")
    assert who("nats://u:p@h/s") == ("u", "p", None)
    assert who("nats://t@h/s") == (None, None, "t")
    assert who("nats://h/s") == ("e", "f", "g")


async def test_a_missing_permission_names_the_subject(guarded: servers.Server) -> None:
    async with eventlog.open(with_user(guarded, "boss:s3cret%2Fp%40ss")) as log:
        await log.append(1)
    async with eventlog.open(with_user(guarded, "reader:r")) as log:
        assert await numbers(log) == [1]
        with anyio.fail_after(HANG_S), pytest.raises(PermissionDenied, match=r"eventlog\.orders"):
            await log.append(2)


async def test_an_event_above_the_servers_limit_is_refused_and_the_log_goes_on(
    address: str,
) -> None:
    async with eventlog.open(address) as log:
        with pytest.raises(EventTooLarge):
            await log.append(b"x" * (1 << 20))
        assert await log.append(b"x" * 1_000_000) == 1


async def test_a_stream_with_a_limit_lets_the_oldest_go_and_takes_more(
    address: str,
) -> None:
    async with eventlog.open(address) as log:
        await log.append(1)
        await edit(address, max_bytes=300_000)  # below, the oldest go: it is a limit, not a wall
        for number in range(2, 12):
            assert await log.append(b"x" * 100_000) == number


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("durability", {"durability": "sync"}),
        ("retention", {"retention": Retention(max_bytes=1 << 20)}),
        ("on_full", {"on_full": "wait"}),
    ],
)
async def test_what_no_stream_can_keep_is_refused_by_name(
    address: str, option: str, options: dict[str, Any]
) -> None:
    with pytest.raises(NotSupported) as refused:
        async with eventlog.open(address, **options):
            pytest.fail("it cannot be kept")
    assert refused.value.option == option


@pytest.mark.parametrize(
    "address",
    ["nats://u:hidden@host/", "nats://u:hidden@host:99999/s", "nats://u:hidden@/s", "nats://h/a.b"],
)
async def test_an_address_that_is_none_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        eventlog.open(address)
    assert "hidden" not in str(refused.value)


async def test_eight_that_acknowledge_at_once_never_move_a_position_back(address: str) -> None:
    async with eventlog.open(address) as log, eventlog.open(address) as other:
        await log.append_many(range(80))
        async with anyio.create_task_group() as tasks:
            for start in range(8):
                for number in range(start + 1, 81, 8):
                    tasks.start_soon((log, other)[start % 2].ack, "c", number)
        [state] = await log.consumers()
    assert state.last_acked == 80


# --- a connection that breaks ----------------------------------------------------------------


async def test_a_connection_cut_in_the_middle_of_a_frame_costs_nothing(address: str) -> None:
    async with (
        cutting(address, 4_000, 9_000, 20_000, 50_000) as cut_address,
        eventlog.open(cut_address, retry_s=HANG_S) as log,
    ):
        for number in range(40):
            await log.append_many([number, b"x" * 3000])
    async with eventlog.open(address) as log:
        stored = await numbers(log)
    assert stored[::2] == list(range(40))


def test_the_blocking_log_is_the_same(address: str) -> None:
    with eventlog.blocking.open(address) as log:
        assert log.append(1) == 1
        assert [one.event for one in log.read(1)] == [1]
