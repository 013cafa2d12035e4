"""This log, with a key for each event, or a key and one header; the consumer reads them too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import eventlog.blocking
from benchmark.events import Event
from benchmark.systems.base import ConsumerTask, Place, ProducerTask
from benchmark.systems.log import BlockingLog

HEADERS: Final[Mapping[str, str]] = {"source": "shop"}


def key_of(event: Event) -> str:
    """The key of an order: its customer, one of a thousand."""
    key: str = event["customer"]
    return key


class TextsLog(BlockingLog):
    """As `BlockingLog`, event by event."""

    def __init__(self, place: Place, *, has_headers: bool = False) -> None:
        super().__init__(place)
        self.has_headers = has_headers

    def produce(self, task: ProducerTask) -> None:
        """One `send` for each event; headers are a dict of their own each time."""
        with (
            eventlog.blocking.open(self.path) as log,
            log.publisher() as publisher,
        ):
            send = publisher.send
            task.wait_for_start()
            if self.has_headers:
                for event in task.events():
                    send(event, key=key_of(event), headers={**HEADERS})
            else:
                for event in task.events():
                    send(event, key=key_of(event))
        task.sent()

    def _last_of(self, stream: eventlog.blocking.EventStream, task: ConsumerTask) -> Any:
        event: Any = None
        for _, envelope in zip(task.rounds(), stream, strict=False):
            event = envelope.event
            assert envelope.key is not None
            assert not self.has_headers or envelope.headers
        return event


log_with_headers = partial(TextsLog, has_headers=True)
