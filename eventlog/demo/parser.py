"""A consumer of the demonstration: parses every file of the log and acknowledges as it goes.

It writes a line for each event it has handled, "life number digest", into a file of its own: the
proof, made outside of the log, of what it saw and in which order.
"""

from __future__ import annotations

import ast
import hashlib
import warnings

from eventlog import SeekPosition, blocking

ACK_EVERY = 25


def parse_all(log_path: str, consumer: str, proof_path: str, last_seq_no: int, life: int) -> None:
    """Handle events from the last acknowledged one to `last_seq_no`, waiting for those to come."""
    warnings.simplefilter("ignore")  # of the files that are parsed: not our concern
    with (
        blocking.open(log_path) as log,
        log.subscribe(consumer, SeekPosition.LAST_ACKNOWLEDGED) as stream,
        open(proof_path, "a", buffering=1) as proof,
    ):
        done = {state.name: state.last_acked for state in log.consumers()}
        if done.get(consumer) == last_seq_no:
            return
        for envelope in stream:
            seq_no = envelope.seq_no or 0
            digest = hashlib.sha256(envelope.event["source"]).hexdigest()[:16]
            outcome = parse(envelope.event["source"])
            proof.write(f"{life} {seq_no} {digest} {outcome}\n")
            if seq_no % ACK_EVERY == 0 or seq_no == last_seq_no:
                log.ack(consumer, seq_no)
            if seq_no == last_seq_no:
                return


def parse(source: bytes) -> str:
    """The work: CPU-bound, and different for each file."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "unparsable"
    return str(sum(1 for _ in ast.walk(tree)))
