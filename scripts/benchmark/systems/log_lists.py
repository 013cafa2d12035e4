"""This log, with lists that a program has anyway: `send_many` or `append_many`, and `batches()`."""

from __future__ import annotations

from functools import partial

import eventlog
import eventlog.blocking
from benchmark.systems.base import Place, ProducerTask
from benchmark.systems.log import BlockingLog, TrioLog


class SendManyLog(BlockingLog):
    """One `publisher.send_many` for each list of `size`."""

    def __init__(self, place: Place, size: int) -> None:
        super().__init__(place, in_batches=True)
        self.size = size

    def produce(self, task: ProducerTask) -> None:
        """Lists on their way are bounded by the publisher's window."""
        with (
            eventlog.blocking.open(self.path) as log,
            log.publisher() as publisher,
        ):
            task.wait_for_start()
            for chunk in task.chunks(self.size):
                publisher.send_many(chunk)
        task.sent()


class AppendManyLog(BlockingLog):
    """One `append_many` for each list of `size`: the next one begins when it is answered."""

    def __init__(self, place: Place, size: int) -> None:
        super().__init__(place, in_batches=True)
        self.size = size

    def produce(self, task: ProducerTask) -> None:
        """One caller."""
        with eventlog.blocking.open(self.path) as log:
            task.wait_for_start()
            for chunk in task.chunks(self.size):
                log.append_many(chunk)
            task.sent()


class TrioSendManyLog(TrioLog):
    """As `SendManyLog`, on trio."""

    def __init__(self, place: Place, size: int) -> None:
        super().__init__(place, in_batches=True)
        self.size = size

    async def _produce(self, task: ProducerTask) -> None:
        async with (
            eventlog.open(self.path) as log,
            log.publisher() as publisher,
        ):
            task.wait_for_start()
            for chunk in task.chunks(self.size):
                await publisher.send_many(chunk)
        task.sent()


send_many_50 = partial(SendManyLog, size=50)
send_many_200 = partial(SendManyLog, size=200)
send_many_1000 = partial(SendManyLog, size=1000)
trio_send_many_200 = partial(TrioSendManyLog, size=200)
append_many_200 = partial(AppendManyLog, size=200)
