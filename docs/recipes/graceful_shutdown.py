"""A service that SIGTERM ends in order: the event in hand is finished, what was sent is stored."""

import itertools
import signal

import anyio

import eventlog


async def measure(publisher):
    for number in itertools.count():
        await publisher.send({"reading": number})
        await anyio.sleep(0.001)


async def store(log):
    async with log.subscribe("store") as stream:
        async for envelope in stream:
            with anyio.CancelScope(shield=True):  # begun, so it is finished and acknowledged
                await anyio.sleep(0.01)
                print(envelope.seq_no, envelope.event["reading"], flush=True)
                await stream.ack(envelope)


async def main():
    async with (
        eventlog.open("readings") as log,
        log.publisher() as publisher,  # left last, and not cancelled: it stores what was sent
        anyio.create_task_group() as tasks,
    ):
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            tasks.start_soon(measure, publisher)
            tasks.start_soon(store, log)
            await anext(signals)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)  # on asyncio; with backend="trio" on trio
