"""A service that SIGTERM ends in order: the event in hand is finished, what was sent is stored."""

import itertools
import signal

import trio

import eventlog


async def measure(publisher):
    for number in itertools.count():
        await publisher.send({"reading": number})
        await trio.sleep(0.001)


async def store(log):
    async with log.subscribe("store") as stream:
        async for envelope in stream:
            with trio.CancelScope(shield=True):  # begun, so it is finished and acknowledged
                await trio.sleep(0.01)
                print(envelope.seq_no, envelope.event["reading"], flush=True)
                await stream.ack(envelope)


async def main():
    async with (
        eventlog.open("readings") as log,
        log.publisher() as publisher,  # left last, and not cancelled: it stores what was sent
        trio.open_nursery() as tasks,
    ):
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            tasks.start_soon(measure, publisher)
            tasks.start_soon(store, log)
            await anext(signals)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
