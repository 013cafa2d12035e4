"""A ring buffer of 8 MiB between processes: producers wait while the reader is so far behind."""

import sys

from eventlog import Retention, SeekPosition, blocking

PLACE = "/dev/shm/readings"


def open_ring(place):
    return blocking.open(
        place, durability="memory", retention=Retention(max_bytes=8 * 2**20), on_full="wait"
    )


def produce(place=PLACE, events=20_000):
    with open_ring(place) as log:
        if "reader" not in {consumer.name for consumer in log.consumers()}:
            log.seek("reader", SeekPosition.BEGINNING)  # so that nothing goes before it is read
        with log.publisher() as publisher:
            for number in range(events):
                publisher.send({"number": number, "reading": bytes(1000)})  # waits when it is full


def consume(place=PLACE, events=20_000):
    with open_ring(place) as log, log.subscribe("reader") as stream:
        for batch in stream.batches():
            stream.ack(batch[-1])  # makes room
            if batch[-1].event["number"] == events - 1:
                print(f"read up to {batch[-1].seq_no}, {log.status().bytes >> 20} MiB are stored")
                return


if __name__ == "__main__":
    {"produce": produce, "consume": consume}[sys.argv[1]]()
