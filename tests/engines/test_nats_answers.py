"""What comes from a NATS server, taken apart by ourselves: the same however the bytes are cut."""

from __future__ import annotations

import time

import pytest

from eventlog.jetstream.answers import Answer, AnswerParser

pytestmark = pytest.mark.anyio

HEADER = b"NATS/1.0\r\nName: a value\r\nOther:b\r\n\r\n"
STATUS = b"NATS/1.0 404 No Messages\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Client:
    """What the library's parser calls."""

    def __init__(self) -> None:
        self.pings = 0
        self.messages: list[bytes] = []

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_msg(self, sid: int, subject: bytes, *rest: bytes) -> None:
        del sid, rest
        self.messages.append(subject)


SENT = b"".join(
    (
        b"PING\r\n",
        b"MSG one 1 5\r\nhello\r\n",
        b"MSG two 1 reply 8\r\n\r\nMSG \r\n\r\n",
        b"HMSG three 1 %d %d\r\n%bdata\r\n" % (len(HEADER), len(HEADER) + 4, HEADER),
        b"MSG library 2 0\r\n\r\n",
        b"HMSG four 1 reply %d %d\r\n%b\r\n" % (len(STATUS), len(STATUS), STATUS),
        b"PING\r\n",
    )
)
TAKEN = [
    Answer(b"one", b"", b"", b"hello"),
    Answer(b"two", b"reply", b"", b"\r\nMSG \r\n"),
    Answer(b"three", b"", HEADER, b"data"),
    Answer(b"four", b"reply", STATUS, b""),
]


async def test_messages_are_taken_whole_however_the_bytes_are_cut() -> None:
    for size in range(1, len(SENT) + 1):
        client, taken = Client(), list[Answer]()
        parser = AnswerParser(client)
        parser.takers[b"1"] = taken.append
        for start in range(0, len(SENT), size):
            await parser.parse(SENT[start : start + size])
        assert taken == TAKEN
        assert (client.pings, client.messages) == (2, [b"library"])


def test_headers_are_parsed_when_they_are_asked_for() -> None:
    _, _, with_headers, status = TAKEN
    assert with_headers.headers == {"Name": "a value", "Other": "b"}
    assert not with_headers.is_status
    assert status.is_status
    assert status.headers == {"Status": "404"}
    assert TAKEN[0].headers == {}


async def test_a_large_message_in_small_pieces_is_not_copied_for_each() -> None:
    size = 8 << 20
    taken: list[Answer] = []
    parser = AnswerParser(Client())
    parser.takers[b"1"] = taken.append
    sent = b"MSG one 1 %d\r\n%b\r\n" % (size, bytes(size))
    before = time.process_time()
    for start in range(0, len(sent), 4096):
        await parser.parse(sent[start : start + 4096])
    assert time.process_time() - before < 2.0  # 8 GiB of copies take longer
    assert len(taken[0].data) == size
