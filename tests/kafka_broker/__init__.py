"""Apache Kafka for tests: fetched once by Maven, one process that is broker and controller (KRaft).

The jars, and a data directory that is formatted, lie in the user's cache
(`~/.cache/eventlog/kafka-VERSION`), outside the repository. Java 17 or newer runs them.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

POM: Final = Path(__file__).with_name("pom.xml")
HINT: Final = "install Java 17 or newer and Maven, which fetches the broker (tests/kafka_broker)"
JAVA_MIN: Final = 17
FETCH_S: Final = 540.0
GREETING: Final = b"\0\0\0\x0e\0\x12\0\0\0\0\0\x01\0\x04test"
"""Asks which versions of its calls the broker has (ApiVersions); its answer begins with a size."""
CLUSTER: Final = "ZXZlbnRsb2ctdGVzdHMtMQ"
_JVM: Final = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
)
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.2:{other}
listeners=PLAIN://127.0.0.1:{port},PROXY://{behind},CONTROLLER://127.0.0.2:{other}
advertised.listeners=PLAIN://127.0.0.1:{port},PROXY://{proxy}:{port}
listener.security.protocol.map=PLAIN:PLAINTEXT,PROXY:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
log.dirs={data}
auto.create.topics.enable=false
delete.topic.enable=true
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=200
log.initial.task.delay.ms=0
log.segment.delete.delay.ms=0
file.delete.delay.ms=0
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
"""


def version() -> str:
    """Which release the tests run on."""
    found = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([\d.]+)<", POM.read_text())
    assert found is not None
    return found[1]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eventlog" / f"kafka-{version()}"


def find_java() -> Path | None:
    """The program that runs the broker, once its jars are fetched; `None` if they cannot be."""
    java = shutil.which("java")
    if java is None or not _is_new_enough(java):
        return None
    with suppress(OSError, subprocess.SubprocessError):
        _fetch()
    return Path(java) if (_cache() / "formatted").exists() else None


def _is_new_enough(java: str) -> bool:
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return found is not None and int(found[1]) >= JAVA_MIN


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time through, whatever becomes of the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch() -> None:
    cache = _cache()
    if (cache / "formatted").exists():
        return
    with locked(cache.parent / f"{cache.name}.lock"):
        if (cache / "formatted").exists():
            return
        mvn = shutil.which("mvn")
        if mvn is None:
            return
        with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
            made = Path(scratch) / "made"
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={made / 'jars'}"]
            command = [mvn, "-q", "-B", "-f", str(POM), *goal]
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S)
            _format(made)
            shutil.rmtree(cache, ignore_errors=True)
            made.rename(cache)


def behind_proxy(port: int) -> tuple[str, int]:
    """Where a broker on that port listens for what its proxy passes on.

    It tells its clients where to connect, so those by way of a proxy have a listener of their own.
    """
    return "127.0.0.3", port - 6000


def _properties(port: int, proxy: str, data: Path) -> str:
    # The controller has an address that nobody else uses, so any port of it is free.
    other, behind = port - 5000, "{}:{}".format(*behind_proxy(port))
    return _PROPERTIES.format(port=port, other=other, proxy=proxy, behind=behind, data=data)


def _format(made: Path) -> None:
    """Make the data directory of a broker that has never run; the same for all of them."""
    config = made / "format.properties"
    config.write_text(_properties(9092, "127.0.0.4", made / "formatted"))
    tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(config)]
    command = ["java", "-cp", f"{made / 'jars'}/*", *_JVM, *tool]
    subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S)


def prepare(folder: Path, port: int, proxy: str) -> None:
    """Write the settings of a broker, and its data directory if it has none."""
    data = folder / "data"
    if not data.exists():
        shutil.copytree(_cache() / "formatted", data)
    (folder / "server.properties").write_text(_properties(port, proxy, data))


def arguments(folder: Path, port: int, proxy: str) -> Sequence[str]:
    """What Java is started with."""
    prepare(folder, port, proxy)
    says = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",)
    properties = str(folder / "server.properties")
    return ["-cp", f"{_cache() / 'jars'}/*", *_JVM, *says, "kafka.Kafka", properties]
