"""`eventlog mirror` between a directory and every engine on a server, killed on its way."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec
import pytest

from eventlog import EventEnvelope, SeekPosition, blocking
from eventlog.event.stored_batch import identity
from tests import servers
from tests.tools.test_mirror import copied, run, same, start

pytestmark = pytest.mark.slow
EVENTS = 3000


def raw(address: str | Path) -> list[EventEnvelope]:
    with (
        blocking.open(address) as log,
        log.subscribe("raw", SeekPosition.BEGINNING, follow=False, type=msgspec.Raw) as stream,
    ):
        return list(stream)


@pytest.mark.parametrize("kind", ["valkey", "redis", "nats", "kafka"])
def test_a_log_goes_to_a_server_and_back_though_mirrors_are_killed(
    kind: str, tmp_path: Path
) -> None:
    servers.require(kind)
    there = f"{servers.shared(kind).address}mirror-{uuid.uuid4().hex}"
    here, back = tmp_path / "here", tmp_path / "back"
    with blocking.open(here) as log:
        log.append_many([{"n": n} for n in range(EVENTS)], keys=[str(n % 7) for n in range(EVENTS)])
        log.append("last", headers={"h": "v"})
    for source, target in ((str(here), there), (there, str(back))):
        for _ in range(3):
            with blocking.open(target) as other:
                first_new = (other.last_seq_no() or 0) + 1
                with start("mirror", source, target) as mirror:
                    if first_new <= EVENTS:
                        with other.subscribe("until", SeekPosition.sequence(first_new)) as stream:
                            next(stream)
                    mirror.kill()
        copied(source, target)
        assert same(source, target)
    assert list(map(identity, raw(back))) == list(map(identity, raw(here)))
    too_large = tmp_path / "too-large"
    with blocking.open(too_large) as log:
        log.append(bytes(12 << 20))
    refused = run("mirror", too_large, f"{there}-2")
    assert (refused.returncode == 1) == (kind == "nats"), refused.stderr
