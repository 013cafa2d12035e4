"""What workers on hosts run; each notes what it does, in files that the test sees.

`RECORD` in the environment is the folder, `HOST` the host's name. A line is `got` or `did`, host,
number, key and attempt.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from eventlog import EventEnvelope

QUICK_S: Final = 0.05
LOOK_S: Final = 0.01


def _note(word: str, envelope: EventEnvelope) -> None:
    line = f"{word} {os.environ['HOST']} {envelope.seq_no} {envelope.key} {envelope.attempt}\n"
    place = os.open(_folder() / "record", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(place, line.encode())
    os.close(place)


def _folder() -> Path:
    return Path(os.environ["RECORD"])


def handle(envelope: EventEnvelope) -> None:
    """Do what the event says: `quick`, `failing`, `killing`, or `long`."""
    _note("got", envelope)
    match envelope.event:
        case "failing":
            raise ValueError("no such order")
        case "killing":
            os._exit(3)
        case "long":
            _work_until_released(envelope)
        case _:
            time.sleep(QUICK_S)
    _note("did", envelope)


def _work_until_released(envelope: EventEnvelope) -> None:
    """Hold a lock, which ends with this process, until the test has made a file."""
    held = (_folder() / f"held-{os.environ['HOST']}-{envelope.seq_no}").open("w")
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        while not (_folder() / "release").exists():
            time.sleep(LOOK_S)
