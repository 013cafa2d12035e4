"""Every error says what happened, to which log, consumer or number, in words and in fields."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

import eventlog
from eventlog import (
    EventLogError,
    EventsTruncated,
    InvalidArgument,
    InvalidArgumentType,
    LogClosed,
    Retention,
    SeekPosition,
    SequenceOutOfRange,
)
from eventlog import errors as errors_module

from .backends import needs
from .logs import KIB, Logs

pytestmark = pytest.mark.anyio

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors_module, inspect.isclass)
    if issubclass(kind, Exception)
]


def test_every_error_is_ours_documented_and_exported() -> None:
    for kind in KINDS:
        assert issubclass(kind, EventLogError)
        assert kind.__doc__
        assert getattr(eventlog, kind.__name__) is kind
        assert kind.__name__ in eventlog.__all__


def test_every_error_survives_pickling_with_its_fields() -> None:
    for kind in KINDS:
        assert issubclass(kind, EventLogError)
        error = kind("what happened", path="log", consumer="c", seq_no=3, first_available=4)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert str(copy) == "what happened"
        assert copy.fields == error.fields


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("InvalidEvent", TypeError),
        ("EventTooLarge", ValueError),
        ("InvalidName", ValueError),
        ("InvalidArgument", ValueError),
        ("InvalidArgumentType", TypeError),
        ("InvalidConfig", ValueError),
        ("SequenceOutOfRange", ValueError),
    ],
)
def test_errors_for_wrong_arguments_are_also_value_or_type_errors(
    name: str, base: type[Exception]
) -> None:
    assert issubclass(getattr(eventlog, name), base)


async def test_an_ack_out_of_range_names_log_consumer_and_numbers(logs: Logs) -> None:
    async with logs.open() as log:
        await log.append_many("abc")
        with pytest.raises(SequenceOutOfRange) as caught:
            await log.ack("billing", 17)
        for part in (log.path, "billing", "17", "3"):
            assert part in str(caught.value)
        assert caught.value.fields == {
            "path": log.path, "consumer": "billing", "seq_no": 17, "last_seq_no": 3,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("foo",), InvalidArgument),
        ((["latest"],), InvalidArgument),
        (("sequence", 2**70), InvalidArgument),
        (("timestamp", -1), InvalidArgument),
        (("sequence", "x"), InvalidArgumentType),
    ],
    ids=str,
)
async def test_a_position_made_by_hand_that_is_none_is_refused(
    logs: Logs, arguments: tuple[Any, ...], kind: type[EventLogError]
) -> None:
    async with logs.open() as log:
        with pytest.raises(kind, match="the position"):
            await log.seek("c", SeekPosition(*arguments))
        await log.seek("c", SeekPosition("sequence", 0))


@needs("prompt retention")
async def test_a_truncated_read_names_log_and_numbers(logs: Logs) -> None:
    retention = Retention(max_bytes=32 * KIB, keep_unacked=False)
    async with logs.open(segment_bytes=8 * KIB, retention=retention) as log:
        for _ in range(200):
            await log.append(b"x" * 500)
        with pytest.raises(EventsTruncated) as caught:
            await log.read(1)
        error = caught.value
        assert (error.path, error.seq_no) == (log.path, 1)
        assert error.first_available == (await log.status()).first_seq_no
        for part in (log.path, "1", str(error.first_available)):
            assert part in str(error)


async def test_a_closed_handle_names_its_log(logs: Logs) -> None:
    async with logs.open() as log:
        path = log.path
    with pytest.raises(LogClosed) as caught:
        await log.append("a")
    assert caught.value.path == path
    assert path in str(caught.value)
