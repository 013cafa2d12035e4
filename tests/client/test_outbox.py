from __future__ import annotations

import contextlib
import random
from collections import Counter, UserDict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventlog.api.batches import copy_of
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import (
    EventTooLarge,
    InvalidEvent,
    LogClosed,
    LogFull,
    SequenceOutOfRange,
    WriterUnavailable,
)
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import areas_bytes, unpack_body
from eventlog.local.client.conversations import ATTEMPTS_MAX, PARTS_AT_ONCE, Channel, Unsent
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import SHARED_BYTES, Outbox
from eventlog.local.wire.messages import Append
from eventlog.testing import ScriptedWriter, batch_of

OPTIONS = LogOptions.of(AskedOptions(segment_bytes=8192))


def new_outbox(options: LogOptions = OPTIONS) -> Outbox:
    return Outbox(Channel("/log", bytes(16), 1 << 20, 1), options)


def send(outbox: Outbox, *events: Any) -> list[OutBatch]:
    """Each event in a batch of its own."""
    return [outbox.add_packed(batch_of(event)) for event in events]


def stored_in(writer: ScriptedWriter) -> list[Any]:
    return [e.event for a in writer.stored for e in unpack_body(a.payload, a.count, 1)]


def test_events_share_a_batch_until_it_is_sealed() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    rows = [outbox.add(n) for n in range(3)]
    assert len({id(batch) for batch, _ in rows}) == 1
    assert outbox.pending == 0
    outbox.seal()
    outbox.seal()
    rows += [outbox.add(3)]
    outbox.seal()
    assert outbox.pending == 2
    writer.run(outbox.deliver(0))
    assert [batch.seq_no_of(row) for batch, row in rows] == [1, 2, 3, 4]
    assert stored_in(writer) == [0, 1, 2, 3]
    assert all(batch.is_sealed and batch.is_done for batch, _ in rows)


def test_a_full_batch_is_sealed_by_the_next_event() -> None:
    outbox = new_outbox()
    batches = {id(outbox.add("x" * 500)[0]) for _ in range(50)}
    assert len(batches) > 5
    assert all(batch.packed.size < 8192 - 128 for batch in outbox.unsent if batch.packed)


def test_a_packed_batch_goes_behind_what_was_added_before() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    first, _ = outbox.add("first")
    second = outbox.add_packed(batch_of("second"))
    third, _ = outbox.add("third")
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert [batch.base_seq_no for batch in (first, second, third)] == [1, 2, 3]
    assert stored_in(writer) == ["first", "second", "third"]


def test_a_bad_event_leaves_the_open_batch_as_it_was() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    outbox.add("good")
    with pytest.raises(InvalidEvent):
        outbox.add(object())
    with pytest.raises(EventTooLarge):
        outbox.add(b"x" * 10_000)
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert stored_in(writer) == ["good"]


def test_the_batches_of_one_call_are_on_their_way_before_the_first_answer() -> None:
    done: list[str] = []

    def breaks(kind: str, _: int) -> bool:
        done.append(kind)
        return False

    outbox, writer = new_outbox(), ScriptedWriter(breaks=breaks)
    many = outbox.add_many([batch_of(number) for number in range(5)])
    writer.run(outbox.deliver(0))
    operations = [kind for kind in done if kind != "answer"]
    assert operations[:8] == ["open", "send", "receive", *["send"] * 5]  # the first ones greet
    assert set(operations[8:]) == {"receive"}
    assert many.result() == (1, 5)


def test_delivery_may_leave_some_batches_unanswered() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    batches = send(outbox, *range(5))
    writer.run(outbox.deliver(5))
    assert outbox.pending == 5
    assert not outbox.unsent
    writer.run(outbox.deliver(0))
    assert [batch.base_seq_no for batch in batches] == [1, 2, 3, 4, 5]


def test_a_batch_says_once_that_it_is_done() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    said = []
    for batch in send(outbox, 1, 2):
        batch.on_done = lambda batch=batch: said.append(batch)
    writer.run(outbox.deliver(0))
    assert len(said) == 2
    assert [batch.packed for batch in said] == [None, None], "its bytes are given back"


def test_a_refused_batch_costs_its_own_events_only() -> None:
    def refuse(append: Append) -> LogFull | None:
        return LogFull("no room", path="/log") if append.producer_seq == 2 else None

    outbox, writer = new_outbox(), ScriptedWriter(refuse=refuse)
    one, two, three = send(outbox, "a", "b", "c")
    writer.run(outbox.deliver(0))
    assert [one.base_seq_no, three.base_seq_no] == [1, 2]
    errors = []
    for _ in range(2):
        with pytest.raises(LogFull, match="no room") as caught:
            two.seq_no_of(0)
        errors.append(caught.value)
    assert errors[0] is not errors[1], "two callers do not share a traceback"
    with pytest.raises(LogFull):
        outbox.check_stored()
    outbox.check_stored()


def test_a_copied_error_keeps_its_fields() -> None:
    error = SequenceOutOfRange("why", path="p", consumer="c", seq_no=1, last_seq_no=2)
    twin = copy_of(error)
    assert type(twin) is SequenceOutOfRange
    assert (str(twin), twin.fields) == ("why", error.fields)


@pytest.mark.parametrize("kind", ["open", "send", "receive", "answer"])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_pipe_that_breaks_once_costs_nothing(kind: str, at: int) -> None:
    count = [0]

    def breaks(what: str, _number: int) -> bool:
        count[0] += what == kind
        return what == kind and count[0] == at

    outbox, writer = new_outbox(), ScriptedWriter(breaks=breaks, piece_bytes=5)
    batches = send(outbox, *"abcdef")
    writer.run(outbox.deliver(3))
    batches += send(outbox, *"gh")
    writer.run(outbox.deliver(0))
    assert stored_in(writer) == list("abcdefgh")
    assert [batch.base_seq_no for batch in batches] == list(range(1, 9))


def test_a_writer_that_never_answers_is_given_up_for_all_batches() -> None:
    writer = ScriptedWriter(breaks=lambda what, _number: what == "receive")
    outbox = new_outbox()
    batches = send(outbox, "a", "b")
    with pytest.raises(WriterUnavailable):
        writer.run(outbox.deliver(0))
    assert outbox.pending == 0
    for batch in batches:
        with pytest.raises(WriterUnavailable):
            batch.seq_no_of(0)
    assert writer.pipes == ATTEMPTS_MAX


def test_an_outbox_goes_on_after_it_was_given_up() -> None:
    broken = [True]
    writer = ScriptedWriter(breaks=lambda what, _number: broken[0] and what == "open")
    outbox = new_outbox()
    send(outbox, "lost")
    with pytest.raises(WriterUnavailable):
        writer.run(outbox.deliver(0))
    broken[0] = False
    (batch,) = send(outbox, "stored")
    writer.run(outbox.deliver(0))
    assert batch.base_seq_no == 1
    assert stored_in(writer) == ["stored"]


def test_a_pipe_that_breaks_after_each_answer_is_not_given_up() -> None:
    heard = [0]

    def breaks(what: str, _number: int) -> bool:
        heard[0] += what == "receive"
        return what == "receive" and heard[0] % 3 == 0

    outbox, writer = new_outbox(), ScriptedWriter(breaks=breaks)
    batches = send(outbox, *range(30))
    for left in range(29, -1, -1):
        writer.run(outbox.deliver(left))
    assert [batch.base_seq_no for batch in batches] == list(range(1, 31))


@pytest.mark.parametrize(("kind", "every"), [("send", 100), ("receive", 7)])
def test_no_more_is_in_flight_than_the_writer_remembers(kind: str, every: int) -> None:
    # All were sent at once, and after a lost pipe the first of them were stored a second time.
    outbox = new_outbox()
    asked: Counter[str] = Counter()

    def breaks(what: str, _number: int) -> bool:
        asked[what] += 1
        return what == kind and asked[what] % every == 0

    writer = ScriptedWriter(breaks=breaks, piece_bytes=100)
    batches = send(outbox, *range(1000))
    writer.run(outbox.deliver(0))
    assert writer.pipes > 1
    assert stored_in(writer) == list(range(1000))
    assert [batch.base_seq_no for batch in batches] == list(range(1, 1001))


@given(st.integers(0, 2**32), st.floats(0, 0.3), st.integers(1, 40))
def test_order_and_once_whatever_breaks(seed: int, share: float, piece_bytes: int) -> None:
    chance = random.Random(seed)
    writer = ScriptedWriter(
        breaks=lambda _what, _number: chance.random() < share, piece_bytes=piece_bytes
    )
    outbox = new_outbox()
    batches: list[OutBatch] = []
    for n in range(12):
        batches += send(outbox, n)
        try:
            writer.run(outbox.deliver(chance.randrange(4)))
        except WriterUnavailable:
            break
    else:
        with contextlib.suppress(WriterUnavailable):
            writer.run(outbox.deliver(0))
    events = stored_in(writer)
    assert events == sorted(set(events)), "in order, each once"
    answered = [(n, b.base_seq_no) for n, b in enumerate(batches) if b.base_seq_no is not None]
    assert all(events[base - 1] == n for n, base in answered)
    assert all(batch.is_done for batch in batches)


@given(st.lists(st.binary(max_size=20), max_size=200), st.randoms(use_true_random=False))
def test_bytes_leave_in_order_however_few_are_taken(
    parts: list[bytes], chance: random.Random
) -> None:
    unsent = Unsent()
    sent = bytearray()
    waiting = list(parts)
    while waiting or unsent:
        if waiting:
            take = chance.randrange(1, 4)
            unsent.add(*waiting[:take])
            waiting = waiting[take:]
        ready = b"".join(unsent.parts())
        assert len(unsent.parts()) <= PARTS_AT_ONCE
        count = chance.randrange(len(ready) + 1)
        sent += ready[:count]
        unsent.sent(count)
        if chance.random() < 0.01:
            unsent.sent(0)
    assert bytes(sent) == b"".join(parts)


class Interrupted(BaseException):
    """As a Ctrl-C, at a place of our choice."""


@pytest.mark.parametrize("before", ["send", "answers", "receive"])
def test_who_is_interrupted_in_the_middle_loses_and_doubles_nothing(before: str) -> None:
    # The next call waited for ever for an answer that nobody owed it.
    outbox, writer = new_outbox(), ScriptedWriter()
    batches = send(outbox, *range(5))
    steps = outbox.deliver(0)
    for wanted in stepped(steps, writer):
        kind = type(wanted).__name__.lower()
        if kind == before and len(outbox.in_flight) > 2:
            break
        if before == "answers" and writer._answers and kind == "receive":
            writer._answers.clear()  # received, and not taken
            break
    steps.close()
    outbox.channel.is_open = False  # as the pipe does
    writer.run(outbox.deliver(0))
    assert stored_in(writer) == [0, 1, 2, 3, 4]
    assert [batch.base_seq_no for batch in batches] == [1, 2, 3, 4, 5]


def stepped(steps: Any, writer: ScriptedWriter) -> Iterator[Any]:
    """Each operation, before the writer performs it."""
    outcome = None
    while True:
        wanted = steps.send(outcome)
        yield wanted
        outcome = writer._perform(wanted)


def test_an_interrupt_while_an_event_is_added_costs_that_event_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The event was there and its time was not: a batch was stored that nobody could read.
    outbox, writer = new_outbox(), ScriptedWriter()
    first, _ = outbox.add("open")

    def interrupted() -> int:
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr("eventlog.event.batch_builder.time.time_ns", interrupted)
        with pytest.raises(Interrupted):
            outbox.add("half")
    outbox.add("good")
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert stored_in(writer) == ["open", "good"]
    assert first.seq_no_of(0) == 1


def test_a_batch_that_an_interrupt_lost_is_not_waited_for() -> None:
    outbox = new_outbox()
    with pytest.raises(LogClosed, match="interrupt"):
        outbox.check_not_lost(OutBatch())


# --- lists in the open batch -----------------------------------------------------------------


def whole_in(writer: ScriptedWriter) -> list[tuple[Any, Any, Any]]:
    """Event, key and headers of all that is stored."""
    found = []
    for append in writer.stored:
        areas = areas_bytes(append.count, append.flags, 0)
        envelopes = unpack_body(append.payload[areas:], append.count, 1)
        found += [(one.event, one.key, one.headers) for one in envelopes]
    return found


KEYS = st.none() | st.sampled_from(["a", "b", "ünlich"])
HEADERS = st.none() | st.sampled_from([{}, {"of": "one"}])
EVENTS = st.integers(0, 9) | st.binary(max_size=600) | st.sampled_from([{"a": [1]}, "ü", 2**64 - 1])
ROWS = st.lists(st.tuples(EVENTS, KEYS, HEADERS), min_size=1, max_size=12)


class Refusing:
    """No event, whatever packs it."""


def add_list(outbox: Outbox, events: Any, keys: Any, headers: Any) -> Any:
    """As publishers do."""
    many = outbox.add_list(events, keys, headers, 2000)
    if many is None:
        outbox.seal()
        many = outbox.add_list(events, keys, headers, 2000)
    return many


@settings(max_examples=40)
@given(st.lists(st.tuples(ROWS, st.sampled_from(["each", "list", "bare", "bad", "cut"]))))
def test_lists_and_single_events_share_batches_whole_and_in_order(
    calls: list[tuple[list[Any], str]],
) -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    expected: list[Any] = []
    handles: list[tuple[Any, tuple[int, int]]] = []
    for rows, way in calls:
        events, keys, headers = (list(column) for column in zip(*rows, strict=True))
        if way == "each":
            for event, key, its_headers in rows:
                outbox.add(event, key, its_headers)
        elif way == "bare":
            many = add_list(outbox, tuple(events), None, None)
            handles.append((many, (len(expected) + 1, len(expected) + len(rows))))
            expected += [(event, None, None) for event in events]
        elif way == "list":
            many = add_list(outbox, events, keys, headers)
            handles.append((many, (len(expected) + 1, len(expected) + len(rows))))
        elif way == "bad":
            assert outbox.add_list([*events, Refusing()], [*keys, None], None, 2000) is None
            assert outbox.add_list([*events, Refusing()], None, None, 2000) is None
        else:
            interrupt_in_list(outbox, events, keys)
        expected += rows if way in {"each", "list"} else []
        if any(many is None for many, _ in handles):  # larger than a batch: told, and not added
            assert sum(len(bytes(str(event), "utf8")) for event in events) > 1000
            return
    outbox.seal()
    assert all(batch.packed.size <= 8192 for batch in outbox.unsent if batch.packed)
    writer.run(outbox.deliver(0))
    assert whole_in(writer) == expected
    assert [many.result() for many, _ in handles] == [numbers for _, numbers in handles]


def interrupt_in_list(outbox: Outbox, events: list[Any], keys: list[Any]) -> None:
    """A Ctrl-C comes before the last event of the list."""

    class Interrupting(UserDict[str, str]):
        def keys(self) -> Any:
            raise Interrupted

    headers = [*[None] * len(events), Interrupting()]
    with contextlib.suppress(Interrupted):  # it has no room, and is not looked at so far
        assert outbox.add_list([*events, "last"], [*keys, None], headers, 2000) is None


@pytest.mark.parametrize(
    ("events", "keys", "headers"),
    [
        ([], None, None),
        (["a", "b"], ["x"], None),
        (["a"], ["x", "y"], None),
        (["a"], iter(["x"]), None),
        (["a"], "x", None),
        (["a", "b"], None, [{}]),
        (["a", Refusing()], None, None),
        (["a", b"b" * 10_000], None, None),
        (iter(["a"]), None, None),
        ("text", None, None),
        (7, None, None),
        (range(1025), None, None),
    ],
)
def test_what_is_no_short_list_is_left_to_batches_of_its_own(
    events: Any, keys: Any, headers: Any
) -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    outbox.add("before")
    assert outbox.add_list(events, keys, headers, 2000) is None
    outbox.add("after")
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert stored_in(writer) == ["before", "after"]


def test_a_batch_that_lists_have_filled_is_sealed() -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    for _ in range(9):
        assert outbox.add_list([b"x" * 100] * 4, ["k"] * 4, {"of": "all"}, 1000) is not None
    assert [batch.rows for batch in outbox.unsent] == [8] * 4
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert whole_in(writer) == [(b"x" * 100, "k", {"of": "all"})] * 36


def test_a_batch_of_lists_is_full_before_a_reader_leaves_its_caches() -> None:
    outbox = new_outbox(LogOptions.of(AskedOptions()))
    for _ in range(3 * SHARED_BYTES // 1000):
        assert outbox.add_list([b"x" * 1000], None, None, 1 << 20) is not None
    assert [batch.packed.size // 1000 for batch in outbox.unsent if batch.packed] == [64, 64, 64]


class Name(str):
    """A key with code of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("bad", "keys"),
    [
        ([EventEnvelope("c"), Refusing()], None),
        ([memoryview(b"c"), Refusing()], None),
        (["c", Refusing()], [Name("x"), None]),
        ([EventEnvelope("c" * 900)] * 3, None),
    ],
)
def test_a_list_taken_event_by_event_leaves_nothing_of_itself(bad: Any, keys: Any) -> None:
    outbox, writer = new_outbox(), ScriptedWriter()
    good = outbox.add_list([EventEnvelope("a", key="k"), "b"], [Name("x"), None], None, 1000)
    assert outbox.add_list(bad, keys, None, 1000) is None
    outbox.add("after")
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert whole_in(writer) == [("a", "x", None), ("b", None, None), ("after", None, None)]
    assert good is not None
    assert good.result() == (1, 2)


@pytest.mark.parametrize(
    ("keys", "headers"),
    [(["k" * 900] * 3, None), (["ü" * 450] * 3, None), (None, {"of": "h" * 900})],
)
def test_keys_and_headers_of_a_list_count_for_its_room(keys: Any, headers: Any) -> None:
    outbox = new_outbox(LogOptions.of(AskedOptions()))
    assert outbox.add_list(["a"] * 3, keys, headers, 1000) is None
    assert outbox.add_list(["a"] * 3, keys, headers, 2000) is not None


def test_a_refused_batch_refuses_the_lists_in_it() -> None:
    outbox = new_outbox()
    writer = ScriptedWriter(refuse=lambda _: LogFull("full", path="/log"))
    lists = [outbox.add_list(["a", "b"], None, None, 2000) for _ in range(2)]
    outbox.seal()
    writer.run(outbox.deliver(0))
    for many in lists:
        assert many is not None
        with pytest.raises(LogFull) as caught:
            many.result()
        assert caught.value.stored == 0
        assert many.numbers is None
