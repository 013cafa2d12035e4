"""Kafka's own: what happens when its broker is killed or stopped, and to topics others touch."""

from __future__ import annotations

import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
from eventlog import EventLog, Group, Retention, SeekPosition
from eventlog.errors import (
    CorruptLog,
    EventsTruncated,
    EventTooLarge,
    LogDeleted,
    NotSupported,
    PermissionDenied,
    WriterUnavailable,
)
from tests import servers

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HANG_S = 60.0
RETRY_S = 300.0
"""A broker takes its time to start on a loaded machine."""


@pytest.fixture(params=["trio", pytest.param("asyncio", marks=pytest.mark.slow)])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Threads serve both event loops."""
    return str(request.param)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A broker that tests may kill, each with topics of its own."""
    servers.require("kafka")
    with servers.own("kafka", tmp_path_factory.mktemp("kafka")) as own:
        yield own


@pytest.fixture
def server(broker: servers.Server) -> servers.Server:
    """That broker, running."""
    if not broker.is_running:
        broker.start()
    return broker


@pytest.fixture
def address(server: servers.Server) -> str:
    """A topic that nobody else uses."""
    return f"{server.address}own-{uuid.uuid4().hex}"


@pytest.fixture
def shared(tmp_path: Path) -> str:
    """A topic of the broker that all tests share."""
    servers.require("kafka")
    return f"{servers.shared('kafka').address}own-{uuid.uuid4().hex}"


async def numbers(log: EventLog) -> list[int]:
    """The payloads of the log; checks that their numbers have no gap."""
    envelopes = await log.read(0)
    assert [one.seq_no for one in envelopes] == list(range(1, len(envelopes) + 1))
    return [one.event for one in envelopes]


async def in_thread(call: Callable[[], Any]) -> Any:
    """Somebody else's client, whose calls block."""
    return await anyio.to_thread.run_sync(call)


def hosts_of(address: str) -> dict[str, Any]:
    return {"bootstrap.servers": address.split("/")[2], "log_level": 0}


def topic_of(address: str) -> str:
    return address.rpartition("/")[2]


def make_topic(address: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    new = NewTopic(topic_of(address), num_partitions=partitions, config=dict(config or {}))
    admin = AdminClient(hosts_of(address))
    admin.create_topics([new])[topic_of(address)].result()


def delete_topic(address: str) -> None:
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(hosts_of(address))
    admin.delete_topics([topic_of(address)])[topic_of(address)].result()


def produce(address: str, *values: bytes, transaction: str | None = None) -> None:
    from confluent_kafka import Producer

    settings = {"transactional.id": transaction} if transaction else {}
    producer = Producer(hosts_of(address) | settings)
    if transaction:
        producer.init_transactions()
        producer.begin_transaction()
    for value in values:
        producer.produce(topic_of(address), value, partition=0)
    if transaction:
        producer.commit_transaction()
    else:
        producer.flush()


# --- a broker that ends ----------------------------------------------------------------------


@pytest.mark.slow
async def test_nothing_is_lost_or_doubled_while_the_broker_is_killed_again_and_again(
    server: servers.Server, address: str
) -> None:
    acknowledged: list[int] = []
    is_over = False
    async with eventlog.open(address, retry_s=RETRY_S) as log:
        with anyio.fail_after(4 * HANG_S):
            async with anyio.create_task_group() as tasks:

                async def produce_pairs() -> None:
                    while not is_over:
                        number = len(acknowledged)
                        first, _ = await log.append_many([number, number])
                        acknowledged.append(first)

                tasks.start_soon(produce_pairs)
                for _ in range(2):
                    reached = len(acknowledged) + 20
                    while len(acknowledged) < reached:  # noqa: ASYNC110 - see the limit
                        await anyio.sleep(0.005)
                    server.kill()
                    server.start()  # here: it ends with its thread
                is_over = True
        assert await numbers(log) == [n for n in range(len(acknowledged)) for _ in (0, 1)]
        assert acknowledged == list(range(1, 2 * len(acknowledged), 2))


async def handle(group: Group, count: int) -> None:
    """Have a member of its own handle so many events."""
    async with await group.open_member() as member:
        lease = await member.lease(count)
        assert lease is not None
        for _, envelope in lease:
            lease.begin(envelope)
            lease.done(envelope)
        await member.flush()


@pytest.mark.slow
async def test_streams_positions_and_groups_go_on_after_a_kill(
    server: servers.Server, address: str
) -> None:
    async with eventlog.open(address, retry_s=RETRY_S) as log, log.group("g") as group:
        await log.append_many(range(10))
        await log.ack("billing", 3)
        await handle(group, 4)
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            seen = [(await anext(stream)).event for _ in range(10)]
            server.kill()
            server.start()  # here: it ends with its thread
            with anyio.fail_after(2 * HANG_S):
                await log.append_many(range(10, 20))
                seen += [(await anext(stream)).event for _ in range(10)]
                await handle(group, 4)
                await log.ack("billing", 2)
        found = {one.name: one.last_acked for one in await log.consumers()}
    assert seen == list(range(20))
    assert found == {"billing": 3, "g": 8}


@pytest.mark.slow
async def test_a_stopped_broker_is_waited_for_and_an_append_is_stored_once(
    server: servers.Server, address: str
) -> None:
    async with eventlog.open(address) as log:
        await log.append(0)
        server.pause()
        try:
            with anyio.fail_after(HANG_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(log.append, 1)
                    await anyio.sleep(8)  # longer than a call waits for its answer
                    server.resume()
        finally:
            server.resume()
        assert await numbers(log) == [0, 1]


@pytest.mark.slow
async def test_without_a_broker_calls_end_after_retry_s(
    server: servers.Server, address: str
) -> None:
    async with eventlog.open(address, retry_s=0.3) as log:
        await log.append(0)
        server.kill()
        with anyio.fail_after(HANG_S), pytest.raises(WriterUnavailable, match="did not answer"):
            await log.append(1)
    with anyio.fail_after(HANG_S), pytest.raises(WriterUnavailable):
        async with eventlog.open(address):
            pytest.fail("there is no broker")
    server.start()  # here: it ends with its thread
    async with eventlog.open(address) as log:
        assert (await numbers(log))[0] == 0


async def test_a_topic_that_had_no_leader_when_it_was_asked_for_is_asked_for_anew(
    shared: str,
) -> None:
    """The library answered for minutes that there was none: now and then, `open` failed."""
    from eventlog.config import AskedOptions
    from eventlog.kafka.address import parse
    from eventlog.kafka.client import Client
    from eventlog.remote.driver import Unreachable

    client = Client(parse(shared, {}, AskedOptions()))
    with pytest.raises(Unreachable):
        await client.bounds_of_new(topic_of(shared))
    await client.make_topic(topic_of(shared), {})
    with anyio.fail_after(HANG_S / 4):
        while True:
            try:
                assert await client.bounds_of_new(topic_of(shared)) == (0, 0)
            except Unreachable:
                await anyio.sleep(0.05)  # as the shell does
            else:
                return


# --- the producer's identity -----------------------------------------------------------------


async def test_after_a_fatal_error_what_is_stored_is_found_and_not_stored_again(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has stored the batch, and the producer learns that it knows nothing of it."""
    from confluent_kafka import KafkaError

    from eventlog.kafka.sender import Sender, _Report

    async with eventlog.open(shared) as log:
        await log.append(0)
        lost = iter([True])

        def is_whole(report: _Report) -> bool:
            if next(lost, False):
                report.error = KafkaError(KafkaError._FATAL)
            return report.error is None

        monkeypatch.setattr(_Report, "is_whole", property(is_whole))
        found: list[Any] = []
        monkeypatch.setattr(Sender, "_found", _noting(Sender._found, found))
        assert await log.append_many([1, 2, 3]) == (2, 4)
        assert await log.append(4) == 5
        assert found == [[1]]
        assert await numbers(log) == [0, 1, 2, 3, 4]


async def test_after_a_fatal_error_what_is_not_stored_is_sent_by_another_producer(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confluent_kafka import KafkaError, KafkaException

    from eventlog.kafka.sender import Sender

    async with eventlog.open(shared) as log:
        await log.append(0)
        send = Sender._produce
        refusals = iter([KafkaException(KafkaError(KafkaError._FATAL))])

        def produce_or_refuse(sender: Sender, batches: Any) -> Any:
            for refusal in refusals:
                raise refusal
            return send(sender, batches)

        monkeypatch.setattr(Sender, "_produce", produce_or_refuse)
        assert await log.append_many([1, 2, 3]) == (2, 4)
        assert await numbers(log) == [0, 1, 2, 3]


def _noting(call: Callable[..., Any], found: list[Any]) -> Callable[..., Any]:
    def noting(*arguments: Any) -> Any:
        found.append(call(*arguments))
        return found[-1]

    return noting


# --- topics that others touch ----------------------------------------------------------------


async def test_a_gap_of_a_foreign_transaction_is_named_and_never_renumbered(shared: str) -> None:
    async with eventlog.open(shared) as log:
        await log.append(1)
        await in_thread(lambda: produce(shared, b"foreign", transaction=uuid.uuid4().hex))
        with anyio.fail_after(HANG_S):
            while await log.last_seq_no() != 3:  # noqa: ASYNC110 - the broker writes the end later
                await anyio.sleep(0.01)
        assert await log.append(2) == 4
        with pytest.raises(CorruptLog, match=r"event 2 .* not written by eventlog"):
            await log.read(0)
        with pytest.raises(CorruptLog, match=r"event 3 .* transactions") as caught:
            await log.read(3)
        assert (caught.value.seq_no, caught.value.last_seq_no) == (3, 3)
        assert [one.event for one in await log.read(4)] == [2]
        async with log.follow(SeekPosition.sequence(3)) as stream:
            with anyio.fail_after(HANG_S), pytest.raises(CorruptLog, match="event 3"):
                await anext(stream)


async def test_a_topic_of_several_partitions_is_no_log(shared: str) -> None:
    await in_thread(lambda: make_topic(shared, 3))
    with pytest.raises(NotSupported, match="3 partitions"):
        async with eventlog.open(shared):
            pytest.fail("it is none")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("cleanup.policy", "compact"), ("message.timestamp.type", "CreateTime")],
)
async def test_a_topic_that_is_set_so_that_a_promise_breaks_is_refused(
    shared: str, setting: str, value: str
) -> None:
    await in_thread(lambda: make_topic(shared, config={setting: value}))
    with pytest.raises(NotSupported, match=setting):
        async with eventlog.open(shared):
            pytest.fail("it is none")


async def test_a_deleted_topic_is_told_and_its_positions_are_not_those_of_the_next(
    shared: str,
) -> None:
    async with eventlog.open(shared) as log:
        await log.append_many(range(5))
        await log.ack("billing", 4)
        await in_thread(lambda: delete_topic(shared))
        with anyio.fail_after(HANG_S), pytest.raises(LogDeleted, match="open it again"):
            await log.last_seq_no()
        async with eventlog.open(shared) as other:
            assert await other.append(7) == 1
            assert await other.consumers() == []
            with pytest.raises(LogDeleted):
                await log.last_seq_no()
            with anyio.fail_after(HANG_S), pytest.raises(LogDeleted):
                await log.append(8)


async def test_retention_that_ran_past_a_reader_is_told(shared: str) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    async with eventlog.open(shared) as log:
        await log.append_many(range(10))
        before = TopicPartition(topic_of(shared), 0, 4)
        admin = AdminClient(hosts_of(shared))
        await in_thread(admin.delete_records([before])[before].result)
        with pytest.raises(EventsTruncated) as caught:
            await log.read(1)
        assert caught.value.first_available == 5
        async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
            assert (await anext(stream)).seq_no == 5


async def test_an_option_that_no_topic_keeps_is_refused(shared: str) -> None:
    for options in (
        {"retention": Retention(max_bytes=1 << 30)},
        {"on_full": "wait"},
    ):
        with pytest.raises(NotSupported):
            async with eventlog.open(shared, **options):
                pytest.fail("no topic can")


async def test_a_topic_made_with_sync_flushes_each_batch(shared: str) -> None:
    async with eventlog.open(shared):
        with pytest.raises(NotSupported, match=r"flush\.messages"):
            async with eventlog.open(shared, durability="sync"):
                pytest.fail("it is set to less")
    async with eventlog.open(f"{shared}-synced", durability="sync") as log:
        assert await log.append(1) == 1
        status = await log.status()
        assert (status.durability, status.synced_seq_no) == ("sync", 1)


async def test_an_event_above_the_topics_limit_is_refused_and_the_log_goes_on(shared: str) -> None:
    async with eventlog.open(shared, max_event_bytes=1000) as log:
        with pytest.raises(EventTooLarge):
            await log.append(b"x" * 100_000)
        assert await log.append(1) == 1


async def test_a_topic_whose_limit_was_lowered_since_says_so_of_the_event_alone(
    shared: str,
) -> None:
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
    )

    async with eventlog.open(shared) as log:
        await log.append(1)
        lower = ConfigEntry(
            "max.message.bytes", "5000", incremental_operation=AlterConfigOpType.SET
        )
        kind = ConfigResource.Type.TOPIC
        resource = ConfigResource(kind, topic_of(shared), incremental_configs=[lower])
        admin = AdminClient(hosts_of(shared))
        await in_thread(admin.incremental_alter_configs([resource])[resource].result)
        with anyio.fail_after(HANG_S), pytest.raises(EventTooLarge, match=r"max\.message\.bytes"):
            await log.append(b"x" * 100_000)
        assert await log.append(2) == 2


# --- users -----------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[servers.Server]:
    """A broker that lets only `me` with the password `right` in."""
    servers.require("kafka")
    listeners = "PLAIN:SASL_PLAINTEXT,PROXY:PLAINTEXT,CONTROLLER:PLAINTEXT"
    login = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required"
        ' username="me" password="right" user_me="right";'
    )
    settings = {
        "listener.security.protocol.map": listeners,
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": login,
    }
    asked = [word for name, value in settings.items() for word in ("--override", f"{name}={value}")]
    with servers.own("kafka", tmp_path, *asked) as own:
        yield own


@pytest.mark.slow
async def test_a_wrong_password_is_told_soon_and_shown_nowhere(guarded: servers.Server) -> None:
    place = guarded.address.removeprefix("kafka://")
    async with eventlog.open(f"kafka://me:right@{place}orders") as log:
        assert await log.append(1) == 1
        assert "right" not in log.path + repr(log)
    wrong = "right"[::-1]  # a traceback quotes these lines
    with anyio.fail_after(HANG_S), pytest.raises(PermissionDenied) as caught:
        async with eventlog.open(f"kafka://me:{wrong}@{place}orders"):
            pytest.fail("it is the wrong one")
    assert wrong not in "".join(traceback.format_exception(caught.value))


# --- several processes -----------------------------------------------------------------------


@pytest.mark.slow
async def test_positions_go_forward_only_under_ackers_in_several_processes(shared: str) -> None:
    ackers, rounds = 3, 60
    async with eventlog.open(shared) as log:
        await log.append_many(range(ackers * rounds))
        program = (
            "import sys, eventlog.blocking\n"
            "first, step, last = map(int, sys.argv[2:])\n"
            "with eventlog.blocking.open(sys.argv[1]) as log:\n"
            "    for number in range(first, last + 1, step):\n"
            "        log.ack('c', number)\n"
            "        [state] = log.consumers()\n"
            "        assert state.last_acked >= number, (state, number)\n"
        )
        last = ackers * rounds

        def run_all() -> list[int]:
            running = [
                subprocess.Popen(
                    [sys.executable, "-c", program, shared, str(first + 1), str(ackers), str(last)]
                )
                for first in range(ackers)
            ]
            return [one.wait(4 * HANG_S) for one in running]

        assert await in_thread(run_all) == [0] * ackers
        [state] = await log.consumers()
        assert state.last_acked == last


@pytest.mark.slow
async def test_a_journal_is_cut_behind_a_snapshot_and_who_was_behind_begins_anew(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventlog.kafka import journal

    monkeypatch.setattr(journal, "SNAPSHOT_EVERY", 50)
    async with eventlog.open(shared) as log, eventlog.open(shared) as behind:
        await log.append_many(range(500))
        await behind.ack("early", 7)
        for number in range(1, 201):
            await log.ack("c", number)
        with anyio.fail_after(HANG_S):
            async with eventlog.open(shared) as late:
                for each in (late, behind, log):
                    found = {one.name: one.last_acked for one in await each.consumers()}
                    assert found == {"early": 7, "c": 200}
