"""What runs in processes of its own, until it is killed; each writes down what it saw.

An event is `{"p": producer, "n": counter}`, with padding of some sizes; `"poison"` is set in those
that kill their worker. A result is `{"r": number of its event}`.
"""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from chaos.records import Record
from eventlog import EventEnvelope, LogFull, SeekPosition, blocking
from eventlog.subscription import OnTruncated
from workers.blocking import Pool

PADDING: Final = (10, 10, 200, 3_000, 100_000)
POISON_EVERY: Final = 5_000
MAX_DELIVERIES: Final = 8
"""Chaos kills workers at any time; nobody innocent is that unlucky."""
KEYS: Final = 20


def produce(log_path: str, name: str, record_path: str, pause: str) -> None:
    """Append singly, in lists and pipelined, and note what was acknowledged."""
    record, chance, counter = Record(record_path), random.Random(name), 0

    def event() -> dict[str, Any]:
        nonlocal counter
        counter += 1
        made: dict[str, Any] = {"p": name, "n": counter, "x": bytes(chance.choice(PADDING))}
        return made | ({"poison": True} if counter % POISON_EVERY == 0 else {})

    with blocking.open(log_path) as log:
        while True:
            time.sleep(float(pause))
            try:
                _append_some(log, record, chance, event)
            except LogFull:
                # What was refused was not stored; the audit would find it if it was.
                time.sleep(0.05)


def _append_some(log: blocking.EventLog, record: Record, chance: random.Random, event: Any) -> None:
    match chance.randrange(3):
        case 0:
            made = event()
            record.note("acked", made["n"], log.append(made, key=str(made["n"] % KEYS)))
        case 1:
            many = [event() for _ in range(chance.randrange(1, 30))]
            first, last = log.append_many(many)
            if last - first + 1 == len(many):  # else others came in between its batches
                pairs = enumerate(many, first)
                record.note_all([("acked", made["n"], seq_no) for seq_no, made in pairs])
        case 2:
            with log.publisher(max_batch_bytes=chance.choice([500, 20_000, 300_000])) as publisher:
                made_all = [event() for _ in range(chance.randrange(1, 60))]
                handles = [publisher.send(made, key=str(made["n"] % KEYS)) for made in made_all]
                for made, handle in zip(made_all, handles, strict=True):
                    record.note("acked", made["n"], handle.result())


def consume(log_path: str, name: str, record_path: str, on_truncated: OnTruncated) -> None:
    """Read from the last acknowledged on, and acknowledge now and then."""
    record = Record(record_path)
    position = SeekPosition.LAST_ACKNOWLEDGED
    with (
        blocking.open(log_path) as log,
        log.subscribe(name, position, on_truncated=on_truncated) as stream,
    ):
        record.note("begin")
        for envelope in stream:
            event = envelope.event
            seq_no = envelope.seq_no or 0
            record.note("saw", seq_no, event.get("p", "-"), event.get("n", 0))
            if seq_no % 17 == 0:
                record.note("acking", seq_no)
                log.ack(name, seq_no)
                record.note("acked", seq_no)


def handle(record_folder: str, envelope: EventEnvelope) -> dict[str, int] | None:
    """Note the event; some kill the worker that has them."""
    event = envelope.event
    if "r" in event:
        return None
    if "poison" in event:
        os._exit(3)
    record = _RECORDS.get(record_folder)
    if record is None:
        record = _RECORDS[record_folder] = Record(Path(record_folder) / f"worker-{os.getpid()}")
    record.note("did", envelope.seq_no, envelope.key or "-", time.monotonic_ns())
    return {"r": envelope.seq_no or 0}


_RECORDS: dict[str, Record] = {}


def work(
    log_path: str, group: str, record_folder: str, ordering: str, results: str, until: str = ""
) -> None:
    """A pool that handles what comes; with `until="drained"`, what there is."""
    options: dict[str, Any] = {"ordering": ordering or None, "max_deliveries": MAX_DELIVERIES}
    if results:
        options["output"] = log_path
    with (
        blocking.open(log_path) as log,
        Pool(
            log, group=group, handler=partial(handle, record_folder), processes=2, **options
        ) as pool,
    ):
        if until == "drained":
            pool.drained()
            return
        while True:
            time.sleep(3600)  # until it is killed


ROLES: Final[dict[str, Any]] = {"produce": produce, "consume": consume, "work": work}
